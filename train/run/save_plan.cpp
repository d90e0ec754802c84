#include "train/run/save_plan.h"

#include "engine/device/human_units.h"
#include "train/folders/background_save.h"
#include "train/run/learner_options.h"

namespace colonnade {

SavePlan plan_saves(const Session& session, const Ranks& ranks, size_t available) {
    const Config& c = session.config;
    if (c.save_strategy == Every::never) return {};
    SavePlan plan{.sharded = ranks.several() && c.zero_stage > 0};
    if (plan.sharded && c.export_checkpoints && c.finetuning_type == Finetuning::full)
        fail(Exit::config,
             "export_checkpoints: with zero_stage 1 on several ranks no rank has the whole model when a checkpoint is "
             "written; leave it out; colonnade export makes a model of any checkpoint");
    if (c.async_save == Tristate::off) {
        plan.text = "the run waits until each is written (async_save: false)";
        return plan;
    }
    LearnerOptions options = learner_options(c, ranks);
    options.density = density_of(session);
    plan.background = true;
    plan.copy_bytes = state_bytes(session.model, options, session.device);
    if (c.async_save == Tristate::on) return plan;
    size_t run = Learner::host_plan(session.model, options, session.device).bytes();
    if (session.device == Device::cpu) run += Learner::plan(session.model, options, session.device).bytes();
    const size_t left = available - std::min(available, run * static_cast<size_t>(ranks.local_size()));
    const size_t copies = plan.copy_bytes * static_cast<size_t>(plan.sharded ? ranks.local_size() : 1);
    if (copies <= left / 2) return plan;
    return {.sharded = plan.sharded,
            .text = fmt::format("the run waits until each is written, because a copy of {} would take more than half "
                                "of the {} of host memory left (async_save)",
                                human_bytes(copies), human_bytes(left))};
}

}  // namespace colonnade
