#include "train/selftest/session_subject.h"

#include <algorithm>

#include "train/folders/initial_weights.h"
#include "train/run/learner_options.h"
#include "train/run/split_store.h"

namespace colonnade {
namespace {

std::unique_ptr<Learner> loaded(const Session& session, const LearnerOptions& options) {
    auto learner = std::make_unique<Learner>(session.model, options);
    load_or_initialize(session.config, *learner);
    return learner;
}

}  // namespace

LearnerOptions options_for_checks(const Session& session, const BatchRoom& room, Gpu* gpu) {
    LearnerOptions options = learner_options(session.config, one_rank(), gpu);
    options.density = density_of(session);
    options.max_packs = room.packs;
    options.max_length = room.length;
    if (options.lora) options.lora->dropout = 0;
    options.fp8 = false;
    return options;
}

double bound_of_layouts(Device device) {
    return device == Device::cuda ? 2e-2 : 1e-5;
}

Subject session_subject(const Session& session, Gpu* gpu, int64_t tokens) {
    Subject subject{
        .name = session.config.model_name_or_path.empty() ? "random weights" : session.config.model_name_or_path,
        .learner = [&session,
                    gpu](const BatchRoom& room) { return loaded(session, options_for_checks(session, room, gpu)); },
        .samples = {},
        .sharing = session.train.prefixes.order.empty() ? Sharing::sample : Sharing::row,
        .bound = bound_of_layouts(session.device),
        .each_parameter = true,
        .ties = true};
    const PackPlan plan =
        Packer(session.train.row_lengths(), train_packing(session.config), session.train.prefixes).plan(0);
    int64_t taken = 0;
    for (const int64_t i : plan.samples) {
        Sample sample = session.train.store.sample(i);
        if (session.train.teacher) session.train.teacher->fill(sample);
        const int64_t length = unshared(sample).length();
        if (!subject.samples.empty() && taken + length > tokens) break;
        taken += length;
        subject.samples.push_back(std::move(sample));
    }
    return subject;
}

Subject generating(const Session& session, Subject subject, Gpu* gpu) {
    subject.learner = [&session, gpu](const BatchRoom& room) {
        LearnerOptions options = options_for_checks(session, room, gpu);
        options.objective = std::make_shared<LanguageModelObjective>();
        options.reference = Reference::batches;
        options.training = false;
        return loaded(session, options);
    };
    return subject;
}

}  // namespace colonnade
