#pragma once
// Learner: the model, its gradients and its optimizer state in one planned arena, and what a training step consists of:
//
//     begin_step();  accumulate() for every micro-step;  update();  result()
//
// The loop around it (train/run/trainer.h) handles data, schedules and files; a Learner handles none of them.
//
// On a GPU accumulate() and update() only enqueue, so that the host can prepare the next batch. Read the result() of a
// step one step late. Weights are bf16 there; the optimizer keeps the 16 bits below them, so that both together are fp32.
// Files see these numbers as StateArrays.
//
// With LoRA the adapters are trained: weights(), gradients(), optimizer_state() and parameters() are those of the
// adapters. The model itself, the base, exists once, in the compute dtype, without gradient or optimizer state. With frozen
// layers the base is the frozen part of the model, and all of these are the trained part.

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "engine/device/host_transfers.h"
#include "train/model/freeze.h"
#include "train/objectives/language_model_objective.h"
#include "train/optimizer/adamw.h"
#include "train/optimizer/muon.h"
#include "train/step/gradient_sync.h"
#include "train/step/hosted_blocks.h"
#include "train/step/quantised_base.h"
#include "train/step/sample_noise.h"
#include "train/step/state_array.h"

namespace colonnade {

/// Where the reference comes from.
enum class Reference {
    batches,  ///< every batch brings it (has_reference()), if the objective compares with one at all
    base      ///< the base model computes it before every forward of the policy, in the same memory
};

struct LearnerOptions {
    int64_t max_packs = 1;      ///< packs of the largest batch
    int64_t max_length = 1;     ///< tokens of its longest pack
    BatchDensity density{};     ///< of any batch
    int64_t head_chunk = 1024;  ///< rows of the head whose logits exist at a time
    DType dtype = DType::f32;   ///< of weights and activations on the CPU: f32, or f64 for gradient checks. A GPU: bf16
    /// Of AdamW: f32; u8 for 8-bit codes (train/optimizer/moment_codes.h); on a GPU also bf16.
    DType moments = DType::f32;
    /// The share of the optimizer's state in host memory, from 0 to 1. update() brings it to the device a piece at a time.
    /// Not with Muon.
    double offloaded_optimizer = 0;
    int64_t hosted_piece = int64_t{1} << 23;  ///< elements of such a piece, a multiple of 64
    /// Given: the matrices of the blocks take Muon with this momentum, all others AdamW. Not with LoRA, sharded state or
    /// narrow moments.
    std::optional<double> muon_momentum{};
    bool fp8 = false;  ///< the linear layers of blocks multiply in e4m3 (layers/fp8_product.h)
    Recompute recompute = Recompute::none;
    /// Blocks whose weights and gradients are in host memory (train/step/hosted_blocks.h). Alone on one rank, without
    /// Muon.
    int64_t offloaded_weights = 0;
    int64_t offloaded_activations = 0;               ///< ActivationLayout::offloaded
    int64_t mlp_tile = ActivationLayout().mlp_tile;  ///< smaller in tests
    bool training = true;                ///< false: no gradients, no optimizer state, activations of one layer
    Gpu* gpu = nullptr;                  ///< the device of the model; null: the CPU. Must outlive the learner
    uint64_t seed = 0;                   ///< for stochastic rounding, dropout and noise
    double neftune_noise_alpha = 0;      ///< of the noise on embeddings in training (layers/embedding_noise.h)
    std::optional<LoraSettings> lora{};  ///< adapters are trained
    /// With LoRA: the weights of the base's linear layers are stored in fewer bits.
    std::optional<WeightCode> base_code{};
    std::optional<FreezeSettings> freeze{};  ///< a part of the model is trained; with neither, all of it
    std::shared_ptr<const Objective> objective = std::make_shared<LanguageModelObjective>();
    Reference reference = Reference::batches;
    GradientSyncOptions sync{};  ///< with the other ranks

    DType dtype_on(Device d) const { return d == Device::cuda ? DType::bf16 : dtype; }
    DType compute_dtype() const { return dtype_on(device()); }
    DType moments_on(Device d) const {
        return d == Device::cuda || moments == DType::u8 ? moments : sum_dtype(dtype_on(d));
    }
    Device device() const { return gpu ? Device::cuda : Device::cpu; }
};

struct ContextOptions {
    Profile* profile = nullptr;
    bool deterministic = false;
};

/// A forward and backward pass of a step.
struct MicroStep {
    double total;       ///< Objective::total() of the whole step: all micro-steps of all ranks
    bool last = false;  ///< the last one of the step: gradients travel while backward still computes
};

/// What is trained, and the base: what stays as it is.
ParameterList trained_parameters(const ModelConfig& config, const LearnerOptions& options);
ParameterList base_parameters(const ModelConfig& config, const LearnerOptions& options);
/// What of the base is stored in fewer bits; base_parameters() has the rest.
ParameterList quantised_parameters(const ModelConfig& config, const LearnerOptions& options);
/// Bytes of weights and optimizer state that a rank keeps and saves.
size_t state_bytes(const ModelConfig& config, const LearnerOptions& options, Device device);

/// Result of one optimizer step.
struct StepResult {
    LossSums loss;
    double gradient_norm;  ///< before clipping
    double clip_factor;    ///< 1 if nothing was clipped
    bool applied = true;   ///< false: beyond a limit, so that the weights are those of the step before
};

/// Identifies the results of a forward and backward pass to the bit.
struct Fingerprint {
    double loss = 0;
    uint64_t gradients = 0;
};

class Learner {
  public:
    /// Plans, then allocates (Exit::memory with the figures). Weights are zero until something fills them.
    Learner(const ModelConfig& config, const LearnerOptions& options);
    Learner(const Learner&) = delete;
    Learner& operator=(const Learner&) = delete;

    /// Returns the memory plan of a model on `device` without allocating: Arena::table() and bytes().
    static Arena plan(const ModelConfig& config, const LearnerOptions& options, Device device);
    /// The same for what it keeps in the host's memory, pinned if the device is a GPU.
    static Arena host_plan(const ModelConfig& config, const LearnerOptions& options, Device device);

    const LearnerOptions& options() const { return options_; }
    const ModelConfig& config() const { return config_; }
    const Objective& objective() const { return *options_.objective; }
    const Transformer& model() const { return *model_; }
    const Arena& arena() const { return arena_; }
    const Arena& host_arena() const { return host_; }
    /// Blocks whose inputs are in host memory between forward and backward.
    int64_t offloaded_blocks() const;
    /// Blocks whose weights are there.
    int64_t hosted_blocks() const { return std::ssize(hosted_blocks_); }
    /// The context in which its ops run.
    Context context(const ContextOptions& options = {}) const;

    // --- The step ---

    /// Starts a step: no micro-steps, no loss, no gradients yet.
    void begin_step();
    /// Forward, loss and backward of one batch, added to those of the step. A batch with nothing to learn from changes
    /// nothing.
    void accumulate(const Context& ctx, const Batch& batch, const MicroStep& micro);
    /// Returns the loss that this rank has accumulated in this step. Waits.
    LossSums loss() const;
    /// Sums gradients and loss over the ranks, clips the gradients to max_norm (0: never) and applies AdamW, unless the
    /// loss or the gradient norm is not finite or beyond a limit. A step that is left out counts in AdamW's bias
    /// correction like any other.
    void update(const Context& ctx, const AdamWSettings& settings, double learning_rate, double max_norm,
                const UpdateLimits& limits = {});
    /// Returns the result of the oldest update not yet collected; waits until it is available. Throws Exit::numerics if
    /// its loss or gradient norm is not finite. After that, and after an update that limits.hold held back, the state
    /// is that before the update, and later ones that were enqueued already never happened.
    StepResult result();
    /// Computes a micro-step as accumulate() does, as a step of its own without update, and returns its loss and a
    /// checksum of its gradients. The same batch must give the same bits, but for gradients on a GPU whose context is
    /// not deterministic. Before begin_step(). Waits.
    Fingerprint fingerprint(const Context& ctx, const Batch& batch, double total);
    /// Whether the loss and the gradients of the step so far are finite on this rank. For the step under way, before its
    /// update. Waits.
    bool is_finite(const Context& ctx);
    /// Names the first thing of the step so far that is not finite on this rank: "the loss", or "the gradient of
    /// <parameter>", in the order of backward. Empty if all is finite.
    std::string first_not_finite(const Context& ctx);
    /// Names the first parameter whose weights are not finite; empty if there is none. Waits.
    std::string first_bad_weight() const;

    /// Returns the loss of this rank's batch; the training state does not change. Waits. `nll`: the loss of each
    /// target.
    LossSums evaluate(const Context& ctx, const Batch& batch, std::vector<double>* nll = nullptr);
    /// If Objective::needs_mismatched(): all of a step's mismatched batches, between its begin_step() and its first
    /// accumulate(), or all of an evaluation's before evaluate(). Forward only, without dropout. end_mismatched() adds up
    /// the ranks, so that all call it; `count` is the number of answers of all of them. Enqueues.
    void begin_mismatched();
    void add_mismatched(const Context& ctx, const Batch& batch);
    void end_mismatched(const Context& ctx, double count);
    /// The norm of the gradients accumulated so far, on this rank. Waits.
    double gradient_norm(const Context& ctx);
    /// Returns the log-probability, or the reward, of every sequence, or with Answers::policy the log-probability of
    /// every term: Objective::measure(). Waits.
    std::vector<double> measure(const Context& ctx, const Batch& batch);
    /// Returns the lists of a TeachingObjective for every target, in order. Waits. Throws Exit::numerics for a logit that is
    /// not finite.
    TeacherLists teach(const Context& ctx, const Batch& batch);

    // --- State ---

    /// The trained parameters: those of the model, or with LoRA those of the adapters.
    const ParameterList& parameters() const { return parameters_; }
    /// What the model computes with: flat, on the learner's device, whole on every rank. On a GPU bf16. Not with blocks in
    /// host memory, nor gradients().
    Tensor weights() const { return state_.weights.whole(); }
    /// Flat, whole on every rank, in the master dtype: f32, or f64 for a learner in double.
    Tensor gradients() const { return state_.gradients.whole(); }
    /// What weights() has, in f32 (f64 for a learner in double), wherever it is.
    StateArray rounded_weights() const;
    /// What files have of the training state, for the slices of sync().state(): weights in the master dtype, and the
    /// optimizer's arrays, none without training.
    StateArray master_weights() const;
    std::vector<StateArray> optimizer_state() const;
    /// One weight in the master dtype, in host memory. Not if optimizer state is sharded over ranks on GPUs.
    HostCopy master_weight(const Parameter& parameter) const;
    /// All weights in the master dtype, in host memory: on rank 0; the other ranks get nothing if they are collected.
    /// If they are (optimizer state is sharded over ranks on GPUs), all ranks must call it.
    HostCopy all_weights() const;
    bool collects_weights() const { return options_.gpu && sync_.sharded(); }
    int64_t updates() const { return updates_; }
    const GradientSync& sync() const { return sync_; }
    /// Copies between the device and host memory.
    HostTransfers& transfers() { return transfers_; }
    void set_exchange(bool exchange) { sync_.set_exchange(exchange); }
    /// Checksum of weights(). Ranks whose checksums differ have an error in memory or in a transfer.
    uint64_t weights_checksum();

    /// With LoRA or frozen layers: the parameters of the base, and its weights, flat, in the compute dtype. Without those
    /// that are quantised.
    const ParameterList& base_parameters() const { return base_parameters_; }
    Tensor base() const { return state_.base.whole(); }
    /// SHA-256 of the base's weights rounded to bf16, quantised or not, so that every device gives the same.
    const std::string& base_hash() const { return base_hash_; }
    bool has_base() const { return base_parameters_.size() > 0; }
    /// The whole model in f32 in host memory, as ParameterList(config()) lays it out: the base, and `trained`, which is
    /// all_weights(). Not with LoRA.
    HostCopy whole_model(const Tensor& trained) const;

    // --- Loading (train/folders/initial_weights.h, train/folders/checkpoint.h) ---

    /// Calls `fill` with every parameter and a tensor in host memory for it, in the master dtype. Sharded or not, every rank
    /// fills all.
    void fill_weights(const std::function<void(const Parameter&, const Tensor&)>& fill);
    /// The same with one flat tensor for all of them.
    void fill_weights(const std::function<void(const Tensor&)>& fill);
    /// Calls `fill` with every parameter of the base and a tensor in host memory for it, f32 or f64. It writes all of a
    /// matrix that is kept in fewer bits; what it leaves of others is zero.
    void fill_base(const std::function<void(const Parameter&, const Tensor&)>& fill);
    void set_updates(int64_t updates) { updates_ = updates; }

  private:
    /// Memory that all steps use. It is laid out once, before the memory that batches share.
    struct State {
        PlacedArray base;         ///< LoRA, frozen layers
        QuantisedBase quantised;  ///< quantised_parameters()
        PlacedArray weights, gradients;
        HostedBlocks blocks;
        PlacedArray low;  ///< GPU: the halves below the weights that this rank keeps state of
        PlacedArray m, v;
        PlacedArray m_units, v_units;  ///< of 8-bit moments
        MuonWorkspace muon;
        Tensor step_sums;  ///< f64: LossSums of the step, gradient norm, clip factor, ClipFactor::held
        Tensor eval_sums;
        Tensor mismatched;                ///< f64 [1], if the objective needs it
        Tensor square_sums;               ///< f64: SquareSums::sums of all that this rank adds to the norm
        Tensor decay_map, checksum;       ///< GPU
        Tensor comm_scratch;              ///< of the communicator; empty with one rank
        EmbeddingRows embedding_message;  ///< likewise
        struct Lists {
            const ParameterList &trained, &base, &quantised;
        };
        static State lay_out(Arena& arena, Arena& host, const Lists& lists, const std::vector<int64_t>& hosted,
                             const LearnerOptions& options, const GradientSync& sync);

        Tensor loss_sums() const { return step_sums.slice(0, 0, LossSums::count); }
        Tensor norm_and_clip() const { return step_sums.slice(0, LossSums::count, LossSums::count + 2); }
        Tensor held() const { return step_sums.slice(0, LossSums::count + 2, LossSums::count + 3); }
    };
    enum class Pass { training, inference };
    /// Memory that one batch uses, laid out anew for every batch.
    struct Workspace {
        DeviceBatch batch;
        SampleNoise noise;
        Activations acts;
        ObjectiveBuffers head;
        static Workspace lay_out(Arena& arena, const ModelConfig& config, const LearnerOptions& options,
                                 const BatchShape& shape, Pass pass, int64_t lowest);
        static ActivationLayout layout(const LearnerOptions& options, Device device, const BatchShape& shape, Pass pass,
                                       int64_t lowest);
    };
    /// Elements that are neighbours in the flat buffers, and of which each array is in one place. If one of these is host
    /// memory, they fit a Stage.
    struct KeptPiece {
        Range kept;    ///< among the elements whose state this rank keeps
        Range flat;    ///< in the flat buffers
        size_t slice;  ///< of sync().state()
        bool hosted;
    };
    /// What the update of a piece reads and writes, on the device.
    struct Stage {
        Tensor gradients, weights, low, m, v, m_units, v_units;

        struct Member {
            Tensor Stage::*staged;
            PlacedArray State::*placed;
            Range KeptPiece::*range;
            int64_t elements = 1;    ///< that one of its numbers stands for
            bool is_updated = true;  ///< false: only read

            Range numbers(const KeptPiece& piece) const;
            /// Its numbers are in host memory.
            bool is_hosted(const State& state, const KeptPiece& piece) const;
            Tensor in_place(const State& state, const KeptPiece& piece) const;
        };
        static const std::array<Member, 7> members;

        static constexpr size_t count = 3;  ///< of those for hosted pieces: one arrives, one is updated, one leaves
        /// Where hosted arrays are during their update: in the memory of batches, which is free then.
        static std::array<Stage, count> lay_out(Arena& arena, const State& state, int64_t elements);
    };
    /// An update whose result has not been collected.
    struct Pending {
        std::unique_ptr<Readback> readback;  ///< GPU
        std::vector<double> step_sums;       ///< CPU
        int64_t update = 0;
    };

    /// Throws Exit::memory, naming the keys that need this memory.
    static Arena pinned_memory(const ModelConfig& config, const LearnerOptions& options);
    /// plan() and host_plan().
    static std::pair<Arena, Arena> plans(const ModelConfig& config, const LearnerOptions& options, Device device);
    /// Lays the workspace out for a batch and fills it.
    void prepare(const Context& ctx, const Batch& batch, double total, Pass pass);
    void compute_reference(const Context& ctx, const Batch& batch);
    /// What Objective::measure() has found: of each sequence, or of each term.
    std::vector<double> measured(const Batch& batch) const;
    ObjectiveStep objective_step();

    void clear_sums(const Tensor& sums) const;
    void clear_gradients();
    /// Waits until the host can read gradients in its memory.
    void await_gradients();
    void leave_block(const Context& ctx, int64_t layer);
    /// Checksum of an array's bits, wherever they are. Waits.
    uint64_t checksum_of(const PlacedArray& array) const;
    /// Adds the squares of this rank's gradients to the place of the norm.
    void add_squares(const Context& ctx);
    void add_norm(const Context& ctx);
    std::vector<KeptPiece> kept_pieces() const;
    void update_weights(const Context& ctx, const AdamWSettings& settings, double learning_rate);
    void update_with_muon(const Context& ctx, const AdamWSettings& settings, double learning_rate);
    class HostedUpdate;
    /// Overwrites the weights from element `begin` on with f32 values in host memory. On a GPU.
    void store_weights(int64_t begin, const Tensor& values);
    void keep_result();
    /// Undoes what the host counted of this update and the later ones, which the device held back.
    void take_back(int64_t update);
    std::vector<double> read(const Tensor& numbers) const;
    /// The mask of the current micro-step.
    DropoutMask dropout() const;

    ModelConfig config_;
    LearnerOptions options_;
    ParameterList base_parameters_;  ///< LoRA, frozen layers
    ParameterList quantised_parameters_;
    ParameterList parameters_;
    int64_t lowest_layer_;  ///< with a trained parameter
    GradientSync sync_;
    std::vector<int64_t> hosted_blocks_;
    Arena arena_, host_;
    HostTransfers transfers_;  ///< between the two
    State state_;
    size_t state_end_ = 0, host_state_end_ = 0;  ///< marks of the arenas: the memory of batches comes after them
    Workspace workspace_;
    std::vector<Tensor> square_sums_;  ///< of each of sync().owned()
    ModelParameters gradient_views_;
    GradientSyncMemory sync_memory_;
    std::unique_ptr<Transformer> model_;
    std::deque<Pending> pending_;
    std::vector<std::unique_ptr<Readback>> idle_readbacks_;
    double mismatched_count_ = 0;
    int64_t updates_ = 0;
    int64_t micro_steps_ = 0;  ///< of this step, with the current one
    std::string base_hash_;
};

}  // namespace colonnade
