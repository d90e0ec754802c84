#pragma once
// Noise on embeddings in training: NEFTune (arXiv 2310.05914),
//
//     x[t, j] += scale[t] * u,   u uniform in [-1, 1),   scale[t] = alpha / sqrt(length of t's sample * hidden)
//
// u is a pure function of (seed, stream[t], position[t], j): with a stream for every sample of a step it does not depend
// on where the sample lies in a batch, and nothing is saved. The gradient is not changed.

#include "engine/device/context.h"

namespace colonnade {

struct EmbeddingNoise {
    Tensor x{};          ///< [tokens, hidden], updated
    Tensor scales{};     ///< f32 [tokens]
    Tensor streams{};    ///< i64 [tokens]
    Tensor positions{};  ///< i32 [tokens], from 0
    uint64_t seed = 0;
};
void add_embedding_noise(const Context& ctx, const EmbeddingNoise& args);

/// Word column % 4 of Philox block position * embedding_noise_blocks(hidden) + column / 4 makes u = word / 2^31 - 1.
constexpr int64_t embedding_noise_blocks(int64_t hidden) {
    return (hidden + 3) / 4;
}

}  // namespace colonnade
