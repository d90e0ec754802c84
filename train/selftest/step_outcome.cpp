#include "train/selftest/step_outcome.h"

#include <algorithm>
#include <cmath>

namespace colonnade {
namespace {

std::vector<float> values_of(const Learner& learner, const Tensor& tensor) {
    const HostCopy copy = HostCopy::of(learner.options().gpu, tensor);
    std::vector<float> values;
    dispatch_float(copy.tensor().dtype, [&]<typename T>() {
        const T* first = copy.tensor().as<T>();
        values.assign(first, first + copy.tensor().numel());
    });
    return values;
}

/// Sums over a range of gradients.
struct Distance {
    double error = 0, norm = 0;
    double relative() const { return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error); }
};

Distance distance(const StepOutcome& found, const StepOutcome& expected, const Parameter& p) {
    Distance d;
    for (auto i = static_cast<size_t>(p.begin); i < static_cast<size_t>(p.begin + p.size()); ++i) {
        const double x = found.gradients[i], y = expected.gradients[i];
        d.error += (x - y) * (x - y);
        d.norm += y * y;
    }
    return d;
}

/// A NaN counts as larger than any number.
bool exceeds(double value, double other) {
    return !(value <= other);
}

Gap worst_metric(const Objective& objective, const StepOutcome& found, const StepOutcome& expected) {
    const std::vector<Metric> left = objective.metrics(found.loss, Phase::evaluation),
                              right = objective.metrics(expected.loss, Phase::evaluation);
    const auto number = [](const Metric& metric) {
        return std::visit([](auto value) { return static_cast<double>(value); }, metric.second);
    };
    double largest = 0;
    for (const Metric& metric : right) largest = std::max(largest, std::abs(number(metric)));
    Gap worst;
    for (size_t i = 0; i < left.size(); ++i) {
        const double x = number(left[i]), y = number(right[i]);
        if (std::isnan(x) && std::isnan(y)) continue;  // unknown in both
        const double gap = std::abs(x - y) / (largest > 0 ? largest : 1);
        if (exceeds(gap, worst.value)) worst = {gap, right[i].first};
    }
    return worst;
}

}  // namespace

StepOutcome& StepOutcome::operator+=(const StepOutcome& other) {
    loss += other.loss;
    require(gradients.size() == other.gradients.size(), "{} gradients and {}", gradients.size(),
            other.gradients.size());
    std::ranges::transform(gradients, other.gradients, gradients.begin(), std::plus());
    return *this;
}

StepOutcome run_step(Learner& learner, std::vector<Batch> batches, const StepRun& run) {
    const Objective& objective = learner.objective();
    const Context ctx = learner.context({.deterministic = run.deterministic});
    learner.begin_step();
    double done = 0;
    size_t sequence = 0;
    for (Batch& batch : batches) {
        if (objective.needs_reference() && !has_reference(batch, objective.answers())) {
            const bool given = !run.reference.empty() && objective.answers() != Answers::policy;
            const auto own =
                given ? run.reference.subspan(sequence, batch.sequences.size()) : std::span<const double>();
            set_reference(batch, objective.answers(),
                          given ? std::vector(own.begin(), own.end()) : learner.measure(ctx, batch));
        }
        sequence += batch.sequences.size();
        learner.accumulate(ctx, batch, {.total = run.total});
        done += static_cast<double>(batch.real_tokens);
        if (run.progress) run.progress(done);
    }
    return {.loss = learner.loss(), .gradients = values_of(learner, learner.gradients())};
}

double OutcomeGaps::worst() const {
    double worst = 0;
    for (const Gap* gap : {&loss, &metrics, &gradients})
        if (exceeds(gap->value, worst)) worst = gap->value;
    return worst;
}

OutcomeGaps compare_outcomes(const Learner& learner, const StepOutcome& found, const StepOutcome& expected,
                             double loss_size) {
    const double size = std::max(std::abs(expected.loss.mean()), loss_size);
    OutcomeGaps gaps{.loss = {std::abs(found.loss.mean() - expected.loss.mean()) / (size > 0 ? size : 1), "loss"},
                     .metrics = worst_metric(learner.objective(), found, expected),
                     .parameter = {},
                     .gradients = {}};
    Distance all;
    for (const Parameter& p : learner.parameters().all()) {
        const Distance d = distance(found, expected, p);
        if (exceeds(d.relative(), gaps.parameter.value)) gaps.parameter = {d.relative(), p.name};
        all.error += d.error;
        all.norm += d.norm;
    }
    gaps.gradients = {all.relative(), "gradients"};
    return gaps;
}

double size_of_advantages(std::span<const Batch> batches) {
    double sum = 0, count = 0;
    for (const Batch& batch : batches)
        for (const float advantage : batch.advantages) sum += std::abs(static_cast<double>(advantage)), ++count;
    return count > 0 ? sum / count : 0;
}

}  // namespace colonnade
