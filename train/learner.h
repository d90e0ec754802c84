#pragma once
// Learner: the model, its gradients and its optimizer state in one planned arena, and the three verbs of training:
// accumulate a micro-step, update, evaluate. The loop around it (train/trainer.h) knows data, schedules and files; a
// Learner knows none.
//
// On a GPU accumulate() and update() only enqueue: the host prepares the next batch meanwhile and asks for a step's
// result() when it wants it, best one step late. Weights are bf16 there, beside masters in f32.

#include <deque>
#include <memory>

#include "engine/host_copy.h"
#include "train/adamw.h"
#include "train/gradient_sync.h"
#include "train/objective.h"

namespace colonnade {

struct LearnerOptions {
    int64_t max_packs = 1;       ///< packs of the largest batch
    int64_t max_length = 1;      ///< tokens of its longest pack
    int64_t head_chunk = 1024;   ///< rows of the head whose logits exist at one time
    DType dtype = DType::f32;    ///< of weights and activations: f32, or f64 for gradient checks; bf16 on a GPU
    DType moments = DType::f32;  ///< of AdamW, on a GPU: f32, or bf16 with stochastic rounding
    Recompute recompute = Recompute::none;
    bool training = true;        ///< false: no gradients, no optimizer state, activations of one layer
    Gpu* gpu = nullptr;          ///< runs the model; null: the CPU does. Must outlive the learner
    uint64_t seed = 0;           ///< of stochastic rounding
    GradientSyncOptions sync{};  ///< with the other ranks

    DType compute_dtype() const { return gpu ? DType::bf16 : dtype; }
    Device device() const { return gpu ? Device::cuda : Device::cpu; }
};

/// What an optimizer step came to.
struct StepResult {
    LossSums loss;
    double gradient_norm;  ///< before clipping
    double clip_factor;    ///< 1 where nothing was clipped
};

class Learner {
  public:
    /// Plans, then allocates (Exit::memory with the figures). Weights are zero until something fills them.
    Learner(const ModelConfig& config, const LearnerOptions& options);
    Learner(const Learner&) = delete;
    Learner& operator=(const Learner&) = delete;

    /// The memory plan of a model on `device`, without allocating: Arena::table() and bytes().
    static Arena plan(const ModelConfig& config, const LearnerOptions& options, Device device);

    /// Where its ops run.
    Context context(Profile* profile = nullptr, bool deterministic = false) const;

    /// Gradients and loss sums of the step to come.
    void zero_gradients();
    /// Forward, loss and backward of one batch; gradients and loss add up. total_weight: of the whole step, all ranks.
    /// With the last batch of a step gradients go to the other ranks while backward still computes.
    void accumulate(const Context& ctx, const Batch& batch, double total_weight, bool last = false);
    /// Loss of what this rank accumulated since zero_gradients(); waits.
    LossSums loss() const;
    /// Sums gradients and loss over the ranks, clips to max_norm (0: never) and applies AdamW, unless the gradients' norm is
    /// not finite.
    void update(const Context& ctx, const AdamWSettings& settings, double learning_rate, double max_norm);
    /// Of the oldest update that was not asked for yet; waits for it. Throws Exit::numerics when its loss or gradient
    /// norm was not finite: the message names the first parameter with a bad gradient. Save nothing after that: on a GPU
    /// a later update may have been enqueued already.
    StepResult result();
    /// Loss only, of this rank's batch; nothing of the training state changes. Waits.
    LossSums evaluate(const Context& ctx, const Batch& batch, std::vector<double>* nll = nullptr);

    const ModelConfig& config() const { return config_; }
    const ParameterList& parameters() const { return parameters_; }
    const Transformer& model() const { return *model_; }
    /// Flat, of the master dtype, on the learner's device: HostCopy reads them. Fill weights by fill_weights(). Where
    /// optimizer state is sharded over ranks (zero_stage 1), m and v, and on a GPU the weights, hold the slices of
    /// sync().state() one after the other.
    const Tensor& weights() const { return state_.weights; }
    const Tensor& gradients() const { return state_.gradients; }
    const Tensor& m() const { return state_.m; }
    const Tensor& v() const { return state_.v; }
    /// weights(), m() or v() of the whole model, in host memory. Where sharded all ranks must call it, and rank 0 alone
    /// gets it.
    HostCopy whole(const Tensor& state) const;
    /// The same on every rank, or memory or a transfer is at fault. Of the weights that the model computes with.
    uint64_t weights_checksum();
    const GradientSync& sync() const { return sync_; }
    void set_exchange(bool exchange) { sync_.set_exchange(exchange); }
    /// Calls `fill` with a flat tensor in host memory and makes what it holds then the weights.
    void fill_weights(const std::function<void(const Tensor&)>& fill);
    int64_t updates() const { return updates_; }
    void set_updates(int64_t updates) { updates_ = updates; }
    const Arena& arena() const { return arena_; }
    const LearnerOptions& options() const { return options_; }

  private:
    /// What every step uses: laid out once, before the memory that batches share.
    struct State {
        Tensor weights, copy, gradients, m, v;
        Tensor outcome;  ///< f64 [5]: loss sums of the step (3), gradient norm, clip factor
        Tensor eval_sums;
        Tensor decay_map, norm_scratch, checksum;  ///< GPU
        Tensor exchange;                           ///< of the communicator; empty with one rank
        static State lay_out(Arena& arena, const ParameterList& parameters, const LearnerOptions& options,
                             const GradientSync& sync);
    };
    struct Workspace {
        BatchTensors batch;
        AttentionMasks::Memory masks;
        Activations acts;
        ObjectiveBuffers head;
        static Workspace lay_out(Arena& arena, const ModelConfig& config, const LearnerOptions& options, int64_t packs,
                                 int64_t length, int64_t targets, bool training);
    };
    /// A step whose result nobody has asked for yet.
    struct Pending {
        std::unique_ptr<Readback> readback;  ///< GPU
        std::vector<double> outcome;         ///< CPU
        int64_t update = 0;
    };
    void run(const Context& ctx, const Batch& batch, double total_weight, const Tensor& sums,
             const ModelParameters* gradients, std::vector<double>* nll, bool last = false);
    void update_weights(const Context& ctx, const AdamWSettings& settings, double learning_rate);
    const Tensor& used_weights() const { return state_.copy.empty() ? state_.weights : state_.copy; }
    Tensor norm_and_clip() const;
    std::string first_bad_gradient() const;
    std::vector<double> read(const Tensor& numbers) const;

    ModelConfig config_;
    LearnerOptions options_;
    ParameterList parameters_;
    GradientSync sync_;
    Arena arena_;
    State state_;
    size_t state_end_ = 0;  ///< arena mark: what lies behind is laid out anew for every batch
    ModelParameters gradient_views_;
    std::unique_ptr<Transformer> model_;
    std::deque<Pending> pending_;
    std::vector<std::unique_ptr<Readback>> idle_readbacks_;
    int64_t updates_ = 0;
};

}  // namespace colonnade
