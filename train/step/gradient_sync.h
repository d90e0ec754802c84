#pragma once
// GradientSync: data-parallel training. Every rank has run its own packs; the gradients of the step are the sum over
// ranks (the loss is already divided by what all of them learn from, so never an average).
//
// Gradients lie in backward order, so that a layer is one run of elements, a bucket. Its sum starts as soon as its
// gradients are final in the last micro-step and travels while the layers below compute. Of each bucket a rank owns a part
// (engine/ranks/communicator.h):
//
//     zero_stage 0   sums everywhere; everybody updates all weights
//     zero_stage 1   sums in the owned parts; a rank keeps optimizer state for those alone, updates those, and the new
//                    weights are shared, each bucket before its layer's next forward (arXiv 1910.02054)
//
// Both give the same bits where the sums do, as on the CPU. With one rank all of it is nothing.
//
// The embedding's gradient is final last, and large. So its sum goes first, without what the last micro-step adds: that
// travels afterwards as rows, which every rank adds from all ranks, in their order.

#include "engine/ranks/communicator.h"
#include "train/model/transformer.h"
#include "train/step/embedding_rows.h"

namespace colonnade {

struct GradientBucket {
    Range elements;
    int64_t first_layer, last_layer;  ///< as LayerHooks counts them; backward comes to first_layer last
    std::string name;                 ///< "layer 3", "embedding"
};
/// All elements of the flat buffers, in their order. A pure function of the list.
std::vector<GradientBucket> gradient_buckets(const ParameterList& parameters);

struct GradientSyncOptions {
    Communicator* communicator = nullptr;  ///< null: one rank
    int ranks = 1;                         ///< also while planning, when nobody has joined yet
    int rank = 0;
    int64_t zero_stage = 0;
    DType wire = DType::f32;  ///< what gradients travel in
};

/// What it works on, in the learner's memory.
struct GradientSyncMemory {
    Tensor gradients;    ///< flat
    Tensor embedding;    ///< a part of them; empty where the embedding is not trained
    Tensor scratch;      ///< scratch_bytes()
    EmbeddingRows rows;  ///< of the largest batch
};

class GradientSync {
  public:
    GradientSync(const ParameterList& parameters, const GradientSyncOptions& options);

    bool sharded() const { return options_.zero_stage > 0 && options_.ranks > 1; }
    /// The slices of the flat buffers whose squares this rank adds to the norm: its part of every bucket, or all.
    const std::vector<Range>& owned() const { return owned_; }
    /// The slices whose optimizer state this rank keeps, one after the other: owned() where sharded, else all.
    const std::vector<Range>& state() const { return sharded() ? owned_ : whole_; }
    int64_t state_size() const;
    size_t scratch_bytes(Device device, DType dtype) const;
    /// Elements of a row of GradientSyncMemory::rows; 0: none are wanted.
    int64_t embedding_width() const;

    /// The last micro-step's backward leaves the embedding to add_embedding().
    bool embedding_by_rows() const { return active() && hidden_ > 0; }
    /// The last micro-step's backward is through with `layer`: starts the sums of what is final now.
    void start(const Context& ctx, const GradientSyncMemory& memory, int64_t layer);
    /// After start() of all layers: adds what every rank's last batch makes of the embedding's gradient. `dout`: [tokens,
    /// hidden] of this rank's; empty where it had none.
    void add_embedding(const Context& ctx, const GradientSyncMemory& memory, const Tensor& dout = {},
                       const TokenIndex& index = {});
    /// Does what was not done, and lets the compute stream wait for all.
    void finish(const Context& ctx, const GradientSyncMemory& memory);
    /// A few f64 of the step, over all ranks.
    void combine(const Context& ctx, const std::vector<Communicator::Scalars>& numbers) const;

    /// Where sharded: the owned part of state()[bucket] has new weights, which everybody gets.
    void share(const Tensor& weights, const Tensor& scratch, size_t bucket);
    /// Lets the compute stream wait for the weights of a layer, or of all.
    void await_weights(int64_t layer);
    void await_weights();

    /// The whole of a state tensor, in host memory on rank 0, empty elsewhere: `own` is this rank's, in host memory. All
    /// ranks call it.
    void collect(const Tensor& into, const Tensor& own) const;

    const GradientSyncOptions& options() const { return options_; }
    /// For measurements: without exchange ranks compute for themselves, and drift apart.
    void set_exchange(bool exchange) { exchange_ = exchange; }

  private:
    bool active() const { return options_.communicator && exchange_; }

    GradientSyncOptions options_;
    std::vector<GradientBucket> buckets_;
    std::vector<Range> owned_, whole_;
    int64_t hidden_ = 0;         ///< of the embedding, the last bucket, where it is trained: its sum goes first
    bool rows_awaited_ = false;  ///< in this step, where embedding_by_rows()
    bool exchange_ = true;
    std::vector<Communicator::Ticket> sums_;                   ///< of the buckets started in this step, in their order
    std::vector<std::optional<Communicator::Ticket>> shares_;  ///< by bucket, as long as nobody waited for it
};

}  // namespace colonnade
