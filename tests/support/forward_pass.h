#pragma once
// One forward pass of a learner's model outside of a step, in memory of its own.

#include "layers/linear.h"
#include "tests/support/tiny_model.h"

namespace colonnade {

class ForwardPass {
  public:
    ForwardPass(const Learner& learner, const Batch& batch, bool adapters = true)
        : learner_(learner),
          arena_(lay_out(batch)),
          masks_(learner.context(), learner.config(), batch.mask, mask_memory_) {
        const Context ctx = learner.context();
        batch_.fill(ctx, batch, batch.target_weight, learner.config().vocab_size);
        learner.model().forward(ctx,
                                {.packs = batch.packs,
                                 .length = batch.length,
                                 .tokens = batch_.tokens,
                                 .positions = batch_.positions,
                                 .token_index = batch_.token_index,
                                 .masks = masks_,
                                 .adapters = adapters},
                                acts_);
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
        batch_ = BatchTensors::lay_out(arena, batch.tokens_total(), std::ssize(batch.rows));
        mask_memory_ = AttentionMasks::Memory::lay_out(arena, c, batch.packs, batch.length);
        acts_ = Activations::lay_out(arena, c, batch.packs, batch.length, dtype, false, Recompute::none,
                                     options.lora ? &*options.lora : nullptr);
        logits_ = arena.tensor("logits", dtype, {batch.tokens_total(), c.vocab_size});
    }

    const Learner& learner_;
    BatchTensors batch_;
    AttentionMasks::Memory mask_memory_;
    Activations acts_;
    Tensor logits_;
    Arena arena_;
    AttentionMasks masks_;
};

}  // namespace colonnade
