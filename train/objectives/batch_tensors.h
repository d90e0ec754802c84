#pragma once
// A batch where the model runs: views of the host's vectors on the CPU, copies in the arena on a GPU. What the loader
// hands over is checked here once, on the host, so that kernels need not.

#include "data/packing/batch.h"
#include "train/model/transformer.h"

namespace colonnade {

struct BatchTensors {
    Tensor tokens, positions;  ///< i32 [packs * length]
    TokenIndex token_index;    ///< tokens sorted, for the embedding's gradient
    Tensor rows, targets;      ///< i32 [targets]
    Tensor branches;           ///< i32 [targets]: index of each target's branch
    Tensor weights;            ///< f32 [targets]
    Tensor scales;             ///< f64 [targets]: weight over that of the whole step

    /// Memory for it: on a planning arena only sizes count.
    static BatchTensors lay_out(Arena& arena, int64_t tokens, int64_t targets);
    /// Fills what was laid out. On the CPU tokens, positions, rows, targets, branches and weights become views of `batch`, which
    /// must live on. Throws Exit::data for a token or target outside the vocabulary.
    void fill(const Context& ctx, const Batch& batch, double total_weight, int64_t vocab);
};

}  // namespace colonnade
