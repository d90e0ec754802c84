// check_packing: shows on your own model and data that packed rows give the loss and gradients of separate samples. It
// runs some packs of a training config once packed and once sample by sample, with whole sequences that share nothing,
// and compares the loss, its metrics and every gradient.

#include <algorithm>

#include "engine/io/progress.h"
#include "engine/program/command_line.h"
#include "train/folders/initial_weights.h"
#include "train/run/run_arguments.h"
#include "train/run/session.h"
#include "train/run/stage_objective.h"
#include "train/selftest/session_subject.h"

namespace colonnade {
namespace {

StepOutcome run(Learner& learner, const std::vector<Batch>& batches, double total, const char* label) {
    double tokens = 0;
    for (const Batch& batch : batches) tokens += static_cast<double>(batch.real_tokens);
    Progress progress({.label = label, .total = tokens, .unit = "tokens"});
    // Any reference will do; this one is the model itself.
    StepOutcome outcome =
        run_step(learner, batches, {.total = total, .progress = [&](double done) { progress.update(done); }});
    progress.finish();
    return outcome;
}

int check(const Session& session, int64_t packs) {
    const TokenStore& store = session.train.store;
    const PackPlan plan =
        Packer(session.train.row_lengths(), train_packing(session.config), session.train.prefixes).plan(0);
    const Sharing sharing = session.train.prefixes.order.empty() ? Sharing::sample : Sharing::row;
    std::vector<Sample> samples;
    std::vector<Batch> packed, separate;
    const std::shared_ptr<const Objective> objective = make_objective(session.config);
    double total = 0;
    size_t pairs = 0;
    for (int64_t p = 0; p < std::min(packs, plan.packs()); ++p) {
        std::vector<const Sample*> pack;
        samples.clear();
        for (const int64_t i : plan.pack(p)) {
            samples.push_back(store.sample(i));
            if (session.train.teacher) session.train.teacher->fill(samples.back());
        }
        for (const Sample& sample : samples) {
            const Sample apart = unshared(sample);
            pack.push_back(&sample);
            separate.push_back(make_batch({{&apart}}));
        }
        packed.push_back(make_batch({pack}, {.sharing = sharing}));
        total += objective->total(packed.back());
        pairs += packed.back().pairs.size();
    }
    const bool on_gpu = session.device == Device::cuda;
    const auto gpu = on_gpu ? std::make_unique<Gpu>(static_cast<int>(session.config.device_index)) : nullptr;
    const BatchRoom room{.packs = 1, .length = std::max(session.config.packing_length, BatchRoom::of(separate).length)};
    Learner learner(session.model, options_for_checks(session, room, gpu.get()));
    load_or_initialize(session.config, learner);
    const StepOutcome a = run(learner, packed, total, "packed"), b = run(learner, separate, total, "separate");
    // A policy's loss may be about 0: its terms are of the size of the advantages.
    const OutcomeGaps gaps = compare_outcomes(learner, a, b, size_of_advantages(separate));
    const double bound = bound_of_layouts(session.device);
    const char* const learned = session.config.rows() == RowKind::texts    ? "targets"
                                : session.config.rows() == RowKind::taught ? "targets"
                                : session.config.rows() == RowKind::scored ? "by which the loss is divided"
                                                                           : "answers";
    if (session.config.compute == Compute::fp8)
        fmt::print("note: compared without compute: fp8, whose roundings are larger than what this looks for\n");
    fmt::print("{} packs, {} samples, {}\n", packed.size(), separate.size(),
               pairs > 0 ? fmt::format("{} pairs", pairs) : fmt::format("{:.0f} {}", total, learned));
    fmt::print("loss      packed {:.7f}, separate {:.7f}: relative difference {:.1e}\n", a.loss.mean(), b.loss.mean(),
               gaps.loss.value);
    fmt::print("metrics   largest relative difference {:.1e} ({})\n", gaps.metrics.value, gaps.metrics.of);
    fmt::print("gradients largest relative difference {:.1e} ({})\n", gaps.parameter.value, gaps.parameter.of);
    // One target or pair may be on the other side of a tie.
    const bool equal =
        gaps.loss.value <= bound && gaps.parameter.value <= bound && gaps.metrics.value <= std::max(bound, 1 / total);
    fmt::print("packed {} separate (bound {:.0e})\n", equal ? "equals" : "DIFFERS FROM", bound);
    return equal ? 0 : static_cast<int>(Exit::numerics);
}

}  // namespace

Work check_packing_command(CLI::App& app) {
    const auto packs = std::make_shared<int64_t>(4);
    app.add_option("--packs", *packs, "number of packs to check")->capture_default_str()->check(at_least(1));
    app.allow_extras();
    app.footer(
        "Runs some packs of the run once packed and once sample by sample, with whole sequences that share nothing, "
        "and "
        "compares the loss, its metrics and every gradient.");
    return [packs, &app] { return check(open_session(load_run(split_run_arguments(app.remaining()))), *packs); };
}

}  // namespace colonnade
