// check_packing: shows on your own model and data that packed rows give the loss and gradients of separate samples. It
// runs some packs of a training config once packed and once sample by sample, with whole sequences that share nothing,
// and compares the loss, its metrics and every gradient.

#include <cmath>

#include "engine/io/progress.h"
#include "engine/program/command_line.h"
#include "train/folders/initial_weights.h"
#include "train/run/learner_options.h"
#include "train/run/run_arguments.h"
#include "train/run/session.h"
#include "train/run/stage_objective.h"
#include "train/step/learner.h"

namespace colonnade {
namespace {

struct Outcome {
    LossSums loss;
    std::vector<float> gradients;
};

Outcome run(Learner& learner, std::vector<Batch>& batches, double total, const char* label) {
    learner.begin_step();
    double tokens = 0, done = 0;
    for (const Batch& batch : batches) tokens += static_cast<double>(batch.real_tokens);
    Progress progress({.label = label, .total = tokens, .unit = "tokens"});
    for (Batch& batch : batches) {
        // Any reference will do; this one is the model itself.
        if (learner.objective().needs_reference())
            set_reference(batch, learner.objective().answers(), learner.measure(learner.context(), batch));
        learner.accumulate(learner.context(), batch, {.total = total});
        progress.update(done += static_cast<double>(batch.real_tokens));
    }
    progress.finish();
    Outcome o{.loss = learner.loss(), .gradients = {}};
    const HostCopy gradients = HostCopy::of(learner.options().gpu, learner.gradients());
    const float* g = gradients.tensor().as<float>();
    o.gradients.assign(g, g + gradients.tensor().numel());
    return o;
}

/// The largest difference of a parameter's gradient, relative to the norm of that gradient, and the parameter's name.
std::pair<double, std::string> worst_gradient(const ParameterList& parameters, const Outcome& a, const Outcome& b) {
    std::pair<double, std::string> worst{0, "none"};
    for (const Parameter& p : parameters.all()) {
        double error = 0, norm = 0;
        for (auto i = static_cast<size_t>(p.begin); i < static_cast<size_t>(p.begin + p.size()); ++i) {
            const double x = a.gradients[i], y = b.gradients[i];
            error += (x - y) * (x - y);
            norm += y * y;
        }
        const double relative = norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
        if (relative > worst.first) worst = {relative, p.name};
    }
    return worst;
}

/// The largest difference of a metric, relative to the largest of all, and the metric's name.
std::pair<double, std::string> worst_metric(const Objective& objective, const Outcome& a, const Outcome& b) {
    const std::vector<Metric> left = objective.metrics(a.loss, Phase::evaluation),
                              right = objective.metrics(b.loss, Phase::evaluation);
    const auto number = [](const Metric& metric) {
        return std::visit([](auto value) { return static_cast<double>(value); }, metric.second);
    };
    double largest = 0;
    for (const Metric& metric : right) largest = std::max(largest, std::abs(number(metric)));
    std::pair<double, std::string> worst{0, "none"};
    for (size_t i = 0; i < left.size(); ++i) {
        const double gap = std::abs(number(left[i]) - number(right[i])) / (largest > 0 ? largest : 1);
        if (gap > worst.first) worst = {gap, right[i].first};
    }
    return worst;
}

/// The mean of the absolute advantages; 0 in stages that have none.
double size_of_advantages(const std::vector<Batch>& batches) {
    double sum = 0, count = 0;
    for (const Batch& batch : batches)
        for (const float advantage : batch.advantages) sum += std::abs(static_cast<double>(advantage)), ++count;
    return count > 0 ? sum / count : 0;
}

/// The learner of the run, for batches of one pack. Without dropout, because the dropped elements depend on the
/// position of a sample in the batch.
LearnerOptions options_of(const Session& session, const std::vector<Batch>& batches, Gpu* gpu) {
    LearnerOptions options = learner_options(session.config, one_rank(), gpu);
    options.density = density_of(session);
    options.max_packs = 1;
    for (const Batch& batch : batches) options.max_length = std::max(options.max_length, batch.length);
    if (options.lora) options.lora->dropout = 0;
    return options;
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
    Learner learner(session.model, options_of(session, separate, gpu.get()));
    load_or_initialize(session.config, learner);
    const Outcome a = run(learner, packed, total, "packed"), b = run(learner, separate, total, "separate");
    // A policy's loss may be about 0: its terms are of the size of the advantages.
    const double size = std::max(std::abs(b.loss.mean()), size_of_advantages(separate));
    const double loss_gap = std::abs(a.loss.mean() - b.loss.mean()) / (size > 0 ? size : 1);
    const auto [gradient_gap, name] = worst_gradient(learner.parameters(), a, b);
    const auto [metric_gap, metric] = worst_metric(*objective, a, b);
    // fp32: thousands of terms are summed in another order. bf16: activations are rounded the other way.
    const double bound = on_gpu ? 2e-2 : 1e-5;
    const char* const learned = session.config.rows() == RowKind::texts    ? "targets"
                                : session.config.rows() == RowKind::taught ? "targets"
                                : session.config.rows() == RowKind::scored ? "by which the loss is divided"
                                                                           : "answers";
    fmt::print("{} packs, {} samples, {}\n", packed.size(), separate.size(),
               pairs > 0 ? fmt::format("{} pairs", pairs) : fmt::format("{:.0f} {}", total, learned));
    fmt::print("loss      packed {:.7f}, separate {:.7f}: relative difference {:.1e}\n", a.loss.mean(), b.loss.mean(),
               loss_gap);
    fmt::print("metrics   largest relative difference {:.1e} ({})\n", metric_gap, metric);
    fmt::print("gradients largest relative difference {:.1e} ({})\n", gradient_gap, name);
    // One target or pair may be on the other side of a tie.
    const bool equal = loss_gap <= bound && gradient_gap <= bound && metric_gap <= std::max(bound, 1 / total);
    fmt::print("packed {} separate (bound {:.0e})\n", equal ? "equals" : "DIFFERS FROM", bound);
    return equal ? 0 : static_cast<int>(Exit::numerics);
}

}  // namespace

Work check_packing_command(CLI::App& app) {
    const auto packs = std::make_shared<int64_t>(4);
    app.add_option("--packs", *packs, "number of packs to check")->capture_default_str()->check(CLI::PositiveNumber);
    app.allow_extras();
    app.footer(
        "Runs some packs of the run once packed and once sample by sample, with whole sequences that share nothing, "
        "and "
        "compares the loss, its metrics and every gradient.");
    return [packs, &app] { return check(open_session(load_run(split_run_arguments(app.remaining()))), *packs); };
}

}  // namespace colonnade
