#pragma once
// The branches of a batch where the model runs: what objectives over answers read beside train/objectives/batch_tensors.h. Made from
// Batch::branch_table, in the arena on both devices.

#include "data/packing/batch.h"
#include "engine/device/arena.h"
#include "engine/device/context.h"

namespace colonnade {

/// How large a batch is.
struct BatchShape {
    int64_t packs = 0, length = 0, targets = 0, branches = 0, samples = 0;
    int64_t tokens() const { return packs * length; }
    static BatchShape of(const Batch& batch);
    /// No batch of so many tokens has more of anything.
    static BatchShape largest(int64_t packs, int64_t length);
};

struct BranchTensors {
    Tensor order, begins;  ///< i32 [targets], [branches + 1]: the targets by branch (layers/preference_loss.h)
    Tensor lengths;        ///< f64 [branches]: weights of a branch's targets, summed
    Tensor pairs;          ///< i32 [samples, 2]: chosen, rejected branch
    Tensor reference;      ///< f64 [branches]: log-probabilities under the reference
    Tensor last_rows;      ///< i32 [branches]: flat row of the last token
    Tensor sample_begins;  ///< i32 [samples + 1]: branches of each sample
    Tensor margins;        ///< f32 [samples]

    static BranchTensors lay_out(Arena& arena, const BatchShape& shape);
    /// Fills what losses over pairs read. Throws Exit::data where a sample has not two answers, or one of them no target.
    void fill_pairs(const Context& ctx, const Batch& batch) const;
    /// Fills `reference` from the batch.
    void fill_reference(const Context& ctx, const Batch& batch) const;
    /// Fills what rankings read. Throws Exit::data for an answer without a token.
    void fill_rankings(const Context& ctx, const Batch& batch) const;
};

}  // namespace colonnade
