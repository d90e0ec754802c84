#include "train/objectives/teaching_objective.h"

#include "engine/device/gemm.h"
#include "layers/largest_logits.h"

namespace colonnade {

ObjectiveBuffers TeachingObjective::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                                            const HeadSettings& s) const {
    const int64_t rows = std::min(s.chunk, std::max<int64_t>(shape.targets, 1)),
                  top = std::min(top_, config.vocab_size);
    ObjectiveBuffers b;
    // Not bf16, whose rounding would show in the log-probabilities.
    b.logits = arena.tensor("head", s.dtype == DType::bf16 ? DType::f32 : s.dtype, {rows, config.vocab_size});
    b.teacher_ids = arena.tensor("head", DType::i32, {shape.targets, top});
    b.teacher_log_probs = arena.tensor("head", DType::f32, {shape.targets, top});
    return b;
}

void TeachingObjective::run(const Context& ctx, const ObjectiveStep& s) const {
    const ObjectiveBuffers& b = s.buffers;
    const int64_t targets = s.batch.targets.numel();
    for (int64_t begin = 0; begin < targets; begin += b.logits.size(0)) {
        const int64_t end = std::min(begin + b.logits.size(0), targets);
        const Tensor logits = b.logits.slice(0, 0, end - begin);
        gemm(ctx, {.c = logits,
                   .a = s.acts.hidden.slice(0, begin, end),
                   .b = s.model.weights().head,
                   .transpose_b = true,
                   .alpha = 1 / temperature_});
        largest_logits(ctx, {.ids = b.teacher_ids.slice(0, begin, end),
                             .log_probs = b.teacher_log_probs.slice(0, begin, end),
                             .logits = logits});
    }
}

}  // namespace colonnade
