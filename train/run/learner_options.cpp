#include "train/run/learner_options.h"

#include <algorithm>

#include "train/run/stage_objective.h"

namespace colonnade {

LearnerOptions learner_options(const Config& c, const Ranks& ranks, Gpu* gpu, Communicator* communicator) {
    const std::shared_ptr<const Objective> objective = make_objective(c);
    const bool by_base = objective->needs_reference() && !c.precompute_ref_log_probs;
    return {.max_packs = std::max(c.per_device_train_batch_size, c.per_device_eval_batch_size),
            .max_length = c.packing_length,
            .head_chunk = c.head_chunk,
            .moments = c.optim == Optim::adamw_8bit ? DType::u8 : c.optim_dtype,
            .offloaded_optimizer = c.device == DeviceChoice::cpu ? 0 : c.offload_optimizer.value,
            .muon_momentum = c.optim == Optim::muon ? std::optional(c.muon_momentum) : std::nullopt,
            .fp8 = c.compute == Compute::fp8,
            .recompute = c.gradient_checkpointing,
            // A CPU computes in the host's memory.
            .offloaded_weights = c.device == DeviceChoice::cpu ? 0 : c.offload_weights.count,
            .offloaded_activations = c.device == DeviceChoice::cpu ? 0 : c.offload_activations.count,
            .gpu = gpu,
            .seed = static_cast<uint64_t>(c.seed),
            .neftune_noise_alpha = c.neftune_noise_alpha,
            .lora = lora_settings(c),
            .base_code = base_code(c),
            .freeze = freeze_settings(c),
            .objective = objective,
            .reference = by_base ? Reference::base : Reference::batches,
            .sync = {.communicator = communicator,
                     .ranks = ranks.size(),
                     .rank = ranks.rank(),
                     .zero_stage = c.zero_stage,
                     .wire = c.grad_sync_dtype}};
}

static void include(BatchDensity& density, const Sample& sample) {
    const auto tokens = static_cast<double>(sample.length());
    int64_t terms = 0;
    for (const Sequence& sequence : sample.sequences) terms += learned_tokens(sequence);
    density.terms = std::max(density.terms, static_cast<double>(terms) / tokens);
    density.sequences = std::max(density.sequences, static_cast<double>(sample.sequences.size()) / tokens);
    density.pairs = std::max(density.pairs, static_cast<double>(sample.pairs.size()) / tokens);
}

BatchDensity density_of(const Session& session) {
    BatchDensity density;
    if (session.config.rows() == RowKind::texts) return density;  // no tables of answers
    double repeats = 1;                                           // of a row's tokens, in what it represents
    for (const StoreResult* split : {&session.train, &session.eval}) {
        if (!split->prefixes.order.empty())
            repeats = 2 * static_cast<double>(train_packing(session.config).most_represented);
        density.teacher = std::max(density.teacher, split->store.statistics.teacher.longest);
        for (int64_t i = 0; i < split->store.size(); ++i) {
            include(density, split->store.sample(i));
            if (!split->mismatched.empty()) include(density, split->mismatched.sample(split->store, i));
        }
    }
    density.terms *= repeats;
    density.sequences *= repeats;
    density.pairs *= repeats;
    return density;
}

}  // namespace colonnade
