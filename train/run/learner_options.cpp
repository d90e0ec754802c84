#include "train/run/learner_options.h"

#include "train/run/stage_objective.h"

namespace colonnade {

LearnerOptions learner_options(const Config& c, const Ranks& ranks, Gpu* gpu, Communicator* communicator) {
    const std::shared_ptr<const Objective> objective = make_objective(c);
    const bool by_base = objective->needs_reference() && !c.precompute_ref_log_probs;
    return {.max_packs = std::max(c.per_device_train_batch_size, c.per_device_eval_batch_size),
            .max_length = c.packing_length,
            .head_chunk = c.head_chunk,
            .moments = c.optim == Optim::adamw_8bit ? DType::u8 : c.optim_dtype,
            .muon_momentum = c.optim == Optim::muon ? std::optional(c.muon_momentum) : std::nullopt,
            .recompute = c.gradient_checkpointing,
            .gpu = gpu,
            .seed = static_cast<uint64_t>(c.seed),
            .neftune_noise_alpha = c.neftune_noise_alpha,
            .lora = lora_settings(c),
            .freeze = freeze_settings(c),
            .objective = objective,
            .reference = by_base ? Reference::base : Reference::batches,
            .sync = {.communicator = communicator,
                     .ranks = ranks.size(),
                     .rank = ranks.rank(),
                     .zero_stage = c.zero_stage,
                     .wire = c.grad_sync_dtype}};
}

}  // namespace colonnade
