#pragma once
// Sampling: draws the next token of each sequence from its logits. In this order, as transformers' logits processors:
//
//     repetition_penalty   a token of the prompt or the answer: logit / penalty if it is above 0, else logit * penalty
//     temperature          logit / temperature; 0: greedy, the first of the largest logits
//     top_k                the k largest; ties with the last of them stay; 0: all
//     top_p                of these the fewest of the largest with this share of the probability (arXiv 1904.09751);
//                          ties with the last of them stay
//     min_p                tokens with at least min_p times the largest probability (arXiv 2407.01082)
//
// The draw takes the first token, in the order of ids, at which the sum of the weights passes u times their total. The
// weight is exp((logit - largest) / temperature) in whole multiples of 2^-40, so that sums are exact in any order, and
// u is a number of Philox(seed, stream) at index `drawn`: a sequence's text depends on its logits, its seed and its
// stream, and on no other sequence.

#include <span>

#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

struct Sampling {
    float temperature = 0;
    float top_p = 1, min_p = 0, repetition_penalty = 1;
    int32_t top_k = 0;
    uint64_t seed = 42, stream = 0;
    bool operator==(const Sampling&) const = default;
};

/// What is known of the sequences of a step, one row each.
struct SamplingRows {
    Tensor tokens;     ///< i32 [rows]: the token that is read next
    Tensor chosen;     ///< i32 [rows]: the token drawn last, or -1 if a logit was not a number
    Tensor positions;  ///< i32 [rows]: its position
    Tensor slots;      ///< i32 [rows]: the sequence's slot of the cache and of `seen`
    Tensor drawn;      ///< i32 [rows]: tokens drawn so far
    Tensor settings;   ///< u8 [rows * sizeof(Sampling)]
    Tensor seen;       ///< i32 [slots, ceil(vocab / 32)]: bit t % 32 of word t / 32: token t has occurred

    static SamplingRows lay_out(Arena& arena, int64_t rows, int64_t vocab);
    SamplingRows first(int64_t rows) const;
};

struct SampleTokens {
    Tensor logits;  ///< f32 [rows, vocab]
    SamplingRows rows;
};
/// Draws a token per row: `chosen` and `tokens` become that token, positions and drawn grow by one, and the token counts
/// as seen. If a logit is NaN, or none is finite, `chosen` becomes -1 and `tokens` 0.
void sample_tokens(const Context& ctx, const SampleTokens& args);

/// The same for one row in host memory: returns the token, or -1. `seen`: words of a row of SamplingRows::seen, or
/// empty.
int32_t choose_token(std::span<const float> logits, const Sampling& settings, uint64_t drawn,
                     std::span<const int32_t> seen = {});

}  // namespace colonnade
