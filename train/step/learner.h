#pragma once
// Learner: the model, its gradients and its optimizer state in one planned arena, and the three verbs of training:
// accumulate a micro-step, update, evaluate. The loop around it (train/run/trainer.h) knows data, schedules and files; a
// Learner knows none.
//
// On a GPU accumulate() and update() only enqueue: the host prepares the next batch meanwhile and asks for a step's
// result() when it wants it, best one step late. Weights are bf16 there, beside masters in f32.
//
// With LoRA what is trained are the adapters: weights(), gradients(), moments and parameters() are theirs. The model
// itself, the base, is there once, in the compute dtype, with neither master nor gradient nor moments.

#include <deque>
#include <memory>
#include <optional>

#include "engine/device/host_copy.h"
#include "train/objectives/language_model_objective.h"
#include "train/optimizer/adamw.h"
#include "train/step/gradient_sync.h"

namespace colonnade {

/// Runs a reference model in the policy's place: fills acts.hidden as the reference would.
using ReferenceForward =
    std::function<void(const Context&, const Transformer& policy, const TransformerInput&, Activations& acts)>;

struct LearnerOptions {
    int64_t max_packs = 1;       ///< packs of the largest batch
    int64_t max_length = 1;      ///< tokens of its longest pack
    int64_t head_chunk = 1024;   ///< rows of the head whose logits exist at one time
    DType dtype = DType::f32;    ///< of weights and activations: f32, or f64 for gradient checks; bf16 on a GPU
    DType moments = DType::f32;  ///< of AdamW, on a GPU: f32, or bf16 with stochastic rounding
    Recompute recompute = Recompute::none;
    bool training = true;  ///< false: no gradients, no optimizer state, activations of one layer
    Gpu* gpu = nullptr;    ///< runs the model; null: the CPU does. Must outlive the learner
    uint64_t seed = 0;     ///< of stochastic rounding and dropout
    /// None: the whole model is trained.
    std::optional<LoraSettings> lora{};
    std::shared_ptr<const Objective> objective = std::make_shared<LanguageModelObjective>();
    /// Where batches carry no reference but the objective compares with one: runs before the policy, every time.
    ReferenceForward reference{};
    GradientSyncOptions sync{};  ///< with the other ranks

    DType dtype_on(Device d) const { return d == Device::cuda ? DType::bf16 : dtype; }
    DType compute_dtype() const { return dtype_on(device()); }
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
    /// Forward, loss and backward of one batch; gradients and loss add up. `total`: of the objective, of the whole step,
    /// all ranks. With the last batch of a step gradients go to the other ranks while backward still computes.
    void accumulate(const Context& ctx, const Batch& batch, double total, bool last = false);
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
    /// The log-probability, or the reward, of every branch: Objective::measure(). Waits.
    std::vector<double> measure(const Context& ctx, const Batch& batch);

    const Objective& objective() const { return *options_.objective; }
    const ModelConfig& config() const { return config_; }
    /// What is trained: the model's parameters, or with LoRA the adapters'.
    const ParameterList& parameters() const { return parameters_; }
    const Transformer& model() const { return *model_; }
    /// Flat, of the master dtype, on the learner's device: HostCopy reads them. Fill weights by fill_weights(). Where
    /// optimizer state is sharded over ranks (zero_stage 1), m and v, and on a GPU the weights, hold the slices of
    /// sync().state() one after the other.
    const Tensor& weights() const { return state_.weights; }
    /// The same rounded to what the model computes with, whole on every rank.
    const Tensor& used_weights() const { return state_.copy.empty() ? state_.weights : state_.copy; }
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
    /// With LoRA: calls `fill` with every parameter of the base and a tensor in host memory for it, f32 or f64.
    void fill_base(const std::function<void(const Parameter&, const Tensor&)>& fill);
    /// With LoRA: the base's parameters and its weights, flat, of the compute dtype.
    const ParameterList& base_parameters() const { return base_parameters_; }
    const Tensor& base() const { return state_.base; }
    /// SHA-256 over the base's weights rounded to bf16, so that it is the same on every device.
    const std::string& base_hash() const { return base_hash_; }
    int64_t updates() const { return updates_; }
    void set_updates(int64_t updates) { updates_ = updates; }
    const Arena& arena() const { return arena_; }
    const LearnerOptions& options() const { return options_; }

  private:
    /// What every step uses: laid out once, before the memory that batches share.
    struct State {
        Tensor base;  ///< LoRA
        Tensor weights, copy, gradients, m, v;
        Tensor outcome;  ///< f64: LossSums of the step, gradient norm, clip factor
        Tensor eval_sums;
        Tensor decay_map, norm_scratch, checksum;  ///< GPU
        Tensor exchange;                           ///< of the communicator; empty with one rank
        EmbeddingRows rows;                        ///< likewise
        static State lay_out(Arena& arena, const ParameterList& parameters, const ParameterList& base,
                             const LearnerOptions& options, const GradientSync& sync);
    };
    struct Workspace {
        BatchTensors batch;
        AttentionMasks::Memory masks;
        Activations acts;
        ObjectiveBuffers head;
        static Workspace lay_out(Arena& arena, const ModelConfig& config, const LearnerOptions& options,
                                 const BatchShape& shape, bool training);
    };
    /// A step whose result nobody has asked for yet.
    struct Pending {
        std::unique_ptr<Readback> readback;  ///< GPU
        std::vector<double> outcome;         ///< CPU
        int64_t update = 0;
    };
    /// Lays the batch out, then calls body(workspace, input). `last`: sums over ranks start with backward.
    template <typename Body>
    void with_batch(const Context& ctx, const Batch& batch, double total, bool training, bool last, Body&& body);
    /// Forward and loss, in training backward; the workspace they leave goes to `then`.
    template <typename Then>
    void run(const Context& ctx, const Batch& batch, double total, const Tensor& sums, const ModelGradients* gradients,
             bool last, Then&& then);
    void backward(const Context& ctx, const TransformerInput& input, Activations& acts, const ModelGradients& gradients,
                  bool last);
    /// Without waiting.
    void clear_sums(const Tensor& sums) const;
    void update_weights(const Context& ctx, const AdamWSettings& settings, double learning_rate);
    Tensor norm_and_clip() const;
    std::string first_bad_gradient() const;
    std::vector<double> read(const Tensor& numbers) const;
    DropoutMask next_dropout();

    ModelConfig config_;
    LearnerOptions options_;
    ParameterList base_parameters_;  ///< LoRA
    ParameterList parameters_;
    GradientSync sync_;
    Arena arena_;
    State state_;
    size_t state_end_ = 0;  ///< arena mark: what lies behind is laid out anew for every batch
    ModelGradients gradient_views_;
    GradientSyncMemory sync_memory_;
    std::unique_ptr<Transformer> model_;
    std::deque<Pending> pending_;
    std::vector<std::unique_ptr<Readback>> idle_readbacks_;
    int64_t updates_ = 0;
    int64_t micro_steps_ = 0;  ///< since zero_gradients()
    std::string base_hash_;
};

}  // namespace colonnade
