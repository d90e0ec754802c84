#pragma once
// Learner: the model, its gradients and its optimizer state in one planned arena, and the three verbs of training:
// accumulate a micro-step, update, evaluate. The loop around it (train/trainer.h) knows data, schedules and files; a
// Learner knows none.

#include <memory>

#include "train/adamw.h"
#include "train/objective.h"

namespace colonnade {

struct LearnerOptions {
    int64_t max_packs = 1;      ///< packs of the largest batch
    int64_t max_length = 1;     ///< tokens of its longest pack
    int64_t head_chunk = 1024;  ///< rows of the head whose logits exist at one time
    DType dtype = DType::f32;   ///< f32, or f64 for gradient checks
    bool training = true;       ///< false: no gradients, no optimizer state, activations of one layer
};

class Learner {
  public:
    /// Plans, then allocates (Exit::memory with the figures). Weights are zero until something fills weights().
    Learner(const ModelConfig& config, const LearnerOptions& options);
    Learner(const Learner&) = delete;
    Learner& operator=(const Learner&) = delete;

    /// The memory plan of a model, without allocating: Arena::table() and bytes().
    static Arena plan(const ModelConfig& config, const LearnerOptions& options);

    void zero_gradients();
    /// Forward, loss and backward of one batch; gradients add up. total_weight: of the whole step.
    LossSums accumulate(const Context& ctx, const Batch& batch, double total_weight);
    struct Update {
        double gradient_norm;  ///< before clipping
        double clip_factor;    ///< 1 where nothing was clipped
    };
    /// Clips to max_norm (0: never) and applies AdamW. Throws Exit::numerics, weights untouched, when the norm is not
    /// finite: the message names the first parameter with a bad gradient.
    Update update(const Context& ctx, const AdamWSettings& settings, double learning_rate, double max_norm);
    /// Loss only; nothing of the training state changes.
    LossSums evaluate(const Context& ctx, const Batch& batch, std::vector<double>* nll = nullptr);

    const ModelConfig& config() const { return config_; }
    const ParameterList& parameters() const { return parameters_; }
    const Transformer& model() const { return *model_; }
    const Tensor& weights() const { return weights_; }
    const Tensor& gradients() const { return gradients_; }
    const Tensor& m() const { return m_; }
    const Tensor& v() const { return v_; }
    int64_t updates() const { return updates_; }
    void set_updates(int64_t updates) { updates_ = updates; }
    const Arena& arena() const { return arena_; }

  private:
    struct Workspace {
        Activations acts;
        ObjectiveBuffers head;
    };
    Workspace workspace(int64_t packs, int64_t length, int64_t targets, bool training);

    ModelConfig config_;
    LearnerOptions options_;
    ParameterList parameters_;
    Arena arena_;
    Tensor weights_, gradients_, m_, v_;
    size_t state_end_ = 0;  ///< arena mark: what lies behind is laid out anew for every batch
    ModelParameters gradient_views_;
    std::unique_ptr<Transformer> model_;
    int64_t updates_ = 0;
};

}  // namespace colonnade
