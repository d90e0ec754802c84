#pragma once
// GradientSync: data-parallel training. Every rank runs its own packs; the gradients of a step are the sum over ranks,
// not an average, because the loss is already divided by the total of all ranks.
//
// Gradients are stored in backward order, so that each layer is a contiguous range of elements, a bucket. The sum of a
// bucket starts as soon as its gradients are final in the last micro-step, and travels while the layers below compute.
// Each rank owns a part of every bucket (engine/ranks/communicator.h):
//
//     zero_stage 0   every rank gets all sums and updates all weights
//     zero_stage 1   every rank gets the sums of its own parts, keeps optimizer state for these and updates these;
//                    the new weights of a bucket are shared before the next forward of its layer (arXiv 1910.02054)
//
// Both values give bit-identical results if the sums do (always on the CPU). With one rank every call is a no-op.
//
// The gradient of the embedding is final last, and large. Therefore its sum goes first, without the contribution of the
// last micro-step. That contribution follows as rows, which every rank adds from all ranks in rank order.

#include <optional>

#include "engine/ranks/communicator.h"
#include "train/model/parameters.h"
#include "train/step/embedding_rows.h"

namespace colonnade {

struct GradientBucket {
    Range elements;
    int64_t first_layer, last_layer;  ///< as Parameter::layer; backward reaches first_layer last
    std::string name;                 ///< "layer 3", "the embedding"
};
/// Buckets that cover the flat buffers, in their order. A pure function of the list.
std::vector<GradientBucket> gradient_buckets(const ParameterList& parameters);

struct GradientSyncOptions {
    Communicator* communicator = nullptr;  ///< null: one rank
    int ranks = 1;                         ///< set even for a plan, before a communicator exists
    int rank = 0;
    int64_t zero_stage = 0;
    DType wire = DType::f32;  ///< dtype in which gradients travel
};

/// The memory it works on; the learner owns it.
struct GradientSyncMemory {
    Tensor gradients;                 ///< flat
    Tensor embedding;                 ///< the part of them that is the embedding's; empty if it is not trained
    Tensor scratch;                   ///< u8 [scratch_bytes()]
    EmbeddingRows embedding_message;  ///< for the largest batch
};

class GradientSync {
  public:
    GradientSync(const ParameterList& parameters, const GradientSyncOptions& options);

    bool sharded() const { return options_.zero_stage > 0 && options_.ranks > 1; }
    /// Slices of the flat buffers whose squares this rank adds to the norm: its part of every bucket; with one rank, all
    /// layers.
    const std::vector<Range>& owned() const { return owned_; }
    /// Slices whose optimizer state this rank keeps, one after the other: owned() if sharded, else all.
    const std::vector<Range>& state() const { return sharded() ? owned_ : whole_; }
    int64_t state_size() const;
    size_t scratch_bytes(Device device, DType dtype) const;
    /// Width of the rows of GradientSyncMemory::embedding_message; 0: it is not needed.
    int64_t embedding_width() const;

    /// Whether backward of the last micro-step leaves the embedding to add_embedding().
    bool embedding_by_rows() const { return active() && embedding_width_ > 0; }
    /// Backward of the last micro-step has finished `layer`: starts the sums that are final now.
    void start(const Context& ctx, const GradientSyncMemory& memory, int64_t layer);
    /// After start() of all layers: adds what the last batch of every rank contributes to the gradient of the
    /// embedding. `dout`: [tokens, hidden], this rank's contribution; empty if it had no batch.
    void add_embedding(const Context& ctx, const GradientSyncMemory& memory, const Tensor& dout = {},
                       const TokenIndex& index = {});
    /// Starts what has not started, and lets the compute stream wait for all of it.
    void finish(const Context& ctx, const GradientSyncMemory& memory);
    /// Combines a few f64 of the step over all ranks.
    void combine(const Context& ctx, const std::vector<Communicator::Scalars>& numbers) const;

    /// If sharded: sends the new weights of this rank's part of a bucket to all ranks.
    void share(const Tensor& weights, const Tensor& scratch, size_t bucket);
    /// Lets the compute stream wait for the weights of a layer, or of all.
    void await_weights(int64_t layer);
    void await_weights();

    /// Collects a whole state tensor on rank 0. `own`: this rank's parts; `into`: used on rank 0 only; both in host
    /// memory. All ranks call it.
    void collect(const Tensor& into, const Tensor& own) const;

    const GradientSyncOptions& options() const { return options_; }
    /// Switches the exchange off for measurements: then every rank computes for itself, and their weights diverge.
    void set_exchange(bool exchange) { exchange_ = exchange; }

  private:
    bool active() const { return options_.communicator && exchange_; }

    GradientSyncOptions options_;
    std::vector<GradientBucket> buckets_;
    std::vector<Range> owned_, whole_;
    int64_t embedding_width_ = 0;  ///< 0 if the embedding is not trained; otherwise it is the last bucket
    bool rows_awaited_ = false;    ///< the message of this step is still to come
    bool exchange_ = true;
    std::vector<Communicator::Ticket> sums_;                   ///< of the buckets started in this step, in their order
    std::vector<std::optional<Communicator::Ticket>> shares_;  ///< by bucket, until someone has waited for it
};

}  // namespace colonnade
