#pragma once
// Sample: one row of a data set after tokenisation, as what one loss needs together. It is a list of token sequences.
// Each sequence names how many tokens it has in common with the one before it and holds what follows them, so that the
// list is a prefix tree of any depth: sequences in the order of a walk over their trie, front-coded.
//
//   SFT, pretraining   one sequence
//   preference pair    two sequences, the chosen answer first, which have the prompt in common
//   ranking            one sequence per answer, the best first; pairs say who beats whom
//   chat, turn by turn one sequence per learned turn
//
// Positions, masks and targets all derive from this one shape (data/packing/batch.h).
//
// Example: a prompt p of 2 tokens with answers a and b.
//
//     sequence 0   shared 0   tokens p0 p1 a0 a1   learned [2, 4)
//     sequence 1   shared 2   tokens b0            learned [2, 3)      the whole sequence is p0 p1 b0

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "data/rows/answer_score.h"

namespace colonnade {

/// Tokens [begin, end) of a sequence are learned with this weight. A sequence's first token has index 0; it is never
/// learned, because nothing predicts it.
struct LearnedSpan {
    int32_t begin, end;
    float weight;  ///< above 0

    bool operator==(const LearnedSpan&) const = default;
};

/// Where a file has the lists of a sequence.
struct TeacherPlace {
    int64_t begin = 0;  ///< 32-bit words from the beginning of the file
    int32_t words = 0;  ///< 0: it has none

    bool operator==(const TeacherPlace&) const = default;
};

struct Sequence {
    int32_t shared = 0;                  ///< number of first tokens in common with the sequence before it
    std::vector<int32_t> tokens{};       ///< what follows them
    std::vector<LearnedSpan> learned{};  ///< ascending and disjoint; in tokens of the whole sequence

    // Of an answer that a model wrote:
    float advantage =
        0;  ///< stage grpo: by how much it is better than expected; stage kto: 1 desirable, -1 not, 0 neither
    std::optional<float> reward{};  ///< for the log
    GivenLogps logps{};             ///< of its learned tokens

    // Of a text that a teacher has seen:
    TeacherLists teacher{};        ///< of its learned tokens; not held by a store, which has ...
    TeacherPlace teacher_place{};  ///< ... the place of the lists in a file (data/store/teacher_file.h)

    int64_t length() const { return shared + static_cast<int64_t>(tokens.size()); }  ///< of the whole sequence
    bool operator==(const Sequence&) const = default;
};

/// Two sequences of a sample, one of which should be preferred.
struct AnswerPair {
    int32_t better = 0, worse = 0;  ///< numbers of the sequences
    float margin = 0;               ///< by how much the better one should score above the other
    float weight = 1;               ///< how much the pair counts in the loss, above 0

    bool operator==(const AnswerPair&) const = default;
};

struct Sample {
    std::vector<Sequence> sequences{};
    std::vector<AnswerPair> pairs{};

    int64_t length() const;                           ///< tokens of the tree: what the model computes
    std::vector<int32_t> whole(size_t number) const;  ///< all tokens of a sequence
    int64_t common() const;                           ///< tokens that all sequences begin with; 0 for one sequence
    bool operator==(const Sample&) const = default;
};

/// Pairs of a query and a key that attention sees: each token sees itself and the tokens before it in its sequence. Those
/// of a sequence's own tokens, or of all its tokens if it shares none:
///
///     (length (length + 1) - shared (shared + 1)) / 2
constexpr int64_t visible_pairs(int64_t length, int64_t shared = 0) {
    return (length * (length + 1) - shared * (shared + 1)) / 2;
}
/// The sum over the sequences of a sample. Sliding windows are not counted: they hide some of these pairs.
int64_t visible_pairs(const Sample& sample);

/// The same sample with whole sequences that share nothing.
Sample unshared(const Sample& sample);

/// Consecutive sequences of a sample as samples of their own, each with as many as `fits` allows, and at least one.
/// Sequences that are compared, and those between them, stay together. What a sample loses of its predecessor's tokens
/// is repeated.
std::vector<Sample> split_sample(const Sample& sample, const std::function<bool(const Sample&)>& fits);

/// Learned spans from a weight per token, 0 for those that are not learned. The first token is left out.
std::vector<LearnedSpan> learned_spans(const std::vector<float>& weights);

/// Number of a sequence's learned tokens.
int64_t learned_tokens(const Sequence& sequence);
/// Sum of the weights of a sequence's, or of a sample's, learned tokens. A token that several sequences learn counts
/// once for each.
double target_weight(const Sequence& sequence);
double target_weight(const Sample& sample);

/// Pairs of a sample, and the sum of their weights.
struct PairTotals {
    double pairs = 0, weight = 0;

    double mean() const { return pairs > 0 ? weight / pairs : 0; }
    bool operator==(const PairTotals&) const = default;
};
PairTotals pair_totals(std::span<const AnswerPair> pairs);

/// Whether every better sequence comes after the worse one, as in preferences of several turns.
bool chosen_come_last(const Sample& sample);

/// Which answers of a ranking are compared, best first.
enum class RankedPairs {
    all,   ///< each with every later one: (0, 1), (0, 2), ..., (1, 2), ...
    best,  ///< the best one with each other
};
/// `like` is what all pairs have but their sequences.
std::vector<AnswerPair> ranked_pairs(size_t answers, RankedPairs which, AnswerPair like);

/// Throws Exit::internal for a sample that is not as described above.
void check_sample(const Sample& sample);

}  // namespace colonnade
