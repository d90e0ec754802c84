#pragma once
// DeviceBatch: a Batch (data/packing/batch.h) on the device that runs the model. The host checks the batch once, in
// fill(), so that kernels need not. On a GPU the tensors are copies in the arena; on the CPU some are views of the
// host's vectors.

#include "data/packing/batch.h"
#include "train/model/transformer.h"

namespace colonnade {

/// How large a batch is.
struct BatchShape {
    int64_t packs = 0, length = 0, targets = 0, branches = 0, samples = 0;
    int64_t tokens() const { return packs * length; }
    static BatchShape of(const Batch& batch);
    /// An upper bound for every batch of this many tokens.
    static BatchShape largest(int64_t packs, int64_t length);
};

/// What an objective reads about the answers of a batch.
enum class Answers { none, pairs, rankings };

struct DeviceBatch {
    TransformerInput input;

    // Targets, in the order of Batch::targets.
    Tensor rows, targets;  ///< i32 [targets]
    Tensor branches;       ///< i32 [targets]: the branch of each target
    Tensor weights;        ///< f32 [targets]
    Tensor scales;         ///< f64 [targets]: the weight divided by the total of the whole step

    // Answers for pairs (both kinds are made from Batch::branch_table):
    Tensor order, begins;  ///< i32 [targets], [branches + 1]: the targets sorted by branch (layers/preference_loss.h)
    Tensor lengths;        ///< f64 [branches]: sum of the weights of a branch's targets
    Tensor pairs;          ///< i32 [samples, 2]: chosen and rejected branch
    Tensor reference;      ///< f64 [branches]: log-probabilities under the reference
    // Answers for rankings:
    Tensor last_rows;      ///< i32 [branches]: flat row of the last token
    Tensor sample_begins;  ///< i32 [samples + 1]: the branches of each sample
    Tensor margins;        ///< f32 [samples]

    static DeviceBatch lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape, Answers answers);
    /// Fills what was laid out. `total`: what the loss of the whole step is divided by. On the CPU tokens, positions,
    /// rows, targets, branches and weights become views of `batch`, which must outlive the pass. Throws Exit::data for
    /// a token or target outside the vocabulary, pairs of other than two answers with targets, and rankings with an
    /// answer of no token.
    void fill(const Context& ctx, const ModelConfig& config, const Batch& batch, double total);

  private:
    void fill_targets(const Context& ctx, const Batch& batch, double total);
    void fill_pairs(const Context& ctx, const Batch& batch) const;
    void fill_rankings(const Context& ctx, const Batch& batch) const;

    Answers answers_ = Answers::none;
};

}  // namespace colonnade
