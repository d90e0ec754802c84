#pragma once
// One forward pass of a learner's model outside of a step, in its own memory.

#include "layers/linear.h"
#include "tests/support/tiny_model.h"

namespace colonnade {

class ForwardPass {
  public:
    ForwardPass(const Learner& learner, const Batch& batch, bool adapters = true)
        : learner_(learner), arena_(lay_out(batch)) {
        const Context ctx = learner.context();
        batch_.fill(ctx, learner.config(), batch, batch.target_weight);
        batch_.input.adapters = adapters;
        learner.model().forward(ctx, batch_.input, acts_);
    }
    ForwardPass(const ForwardPass&) = delete;
    ForwardPass& operator=(const ForwardPass&) = delete;

    std::vector<double> hidden_states() const { return numbers_of(learner_, acts_.hidden); }
    std::vector<double> logits() const {
        const Tensor& head = learner_.model().weights().head;
        linear_forward(learner_.context(), {.out = logits_, .in = acts_.hidden, .weight = head});
        return numbers_of(learner_, logits_);
    }

  private:
    Arena lay_out(const Batch& batch) {
        Arena planned(learner_.context().device);
        lay_out(planned, batch);
        Arena arena(planned.device(), planned.bytes());
        lay_out(arena, batch);
        return arena;
    }
    void lay_out(Arena& arena, const Batch& batch) {
        const ModelConfig& c = learner_.config();
        const LearnerOptions& options = learner_.options();
        const DType dtype = options.compute_dtype();
        batch_ = DeviceBatch::lay_out(arena, c, BatchShape::of(batch), Answers::none);
        acts_ = Activations::lay_out(
            arena, c, {.packs = batch.packs, .length = batch.length, .dtype = dtype, .lora = options.lora});
        logits_ = arena.tensor("logits", dtype, {batch.tokens_total(), c.vocab_size});
    }

    const Learner& learner_;
    DeviceBatch batch_;
    Activations acts_;
    Tensor logits_;
    Arena arena_;
};

}  // namespace colonnade
