// The checks of layouts and gradients in step_checks.h.

#include <algorithm>
#include <cmath>

#include "data/packing/step_layout.h"
#include "train/selftest/step_checks.h"

namespace colonnade {
namespace {

/// The gaps of two layouts as a finding: the largest of loss, metrics and gradients.
Finding finding_of(const Subject& subject, const OutcomeGaps& gaps, double total) {
    const auto named = [&](const Gap& gap, double bound) {
        return Finding{.found = gap.value, .bound = bound, .where = fmt::format("{}, {}", gap.of, subject.name)};
    };
    const double metrics = subject.ties ? std::max(subject.bound, 1 / total) : subject.bound;
    return worst_of({named(gaps.loss, subject.bound), named(gaps.metrics, metrics),
                     named(subject.each_parameter ? gaps.parameter : gaps.gradients, subject.bound)});
}

Finding compare(const Subject& subject, const std::vector<Batch>& one, const std::vector<Batch>& other) {
    std::vector<Batch> all = one;
    all.insert(all.end(), other.begin(), other.end());
    const auto learner = subject.learner(BatchRoom::of(all));
    const double total = subject.total(learner->objective());
    const StepRun run{.total = total, .reference = subject.reference};
    const StepOutcome a = run_step(*learner, one, run), b = run_step(*learner, other, run);
    return finding_of(subject, compare_outcomes(*learner, a, b, size_of_advantages(other)), total);
}

}  // namespace

Finding check_packed(const Subject& subject) {
    return compare(subject, {subject.packed(3)}, subject.separate());
}

Finding check_accumulation(const Subject& subject) {
    return compare(subject, {subject.packed(4)}, subject.in_parts(4));
}

Finding check_ranks(const Subject& subject) {
    std::vector<int64_t> lengths, visible;
    for (const Sample& sample : subject.samples) {
        lengths.push_back(sample.length());
        visible.push_back(visible_pairs(sample));
    }
    const int64_t longest = std::ranges::max(lengths);
    int64_t tokens = 0;
    for (const int64_t length : lengths) tokens += length;
    const PackSettings packing{.packing_length = std::max(longest, tokens / 4 + 1), .min_shared = 1};
    // The reference is one of the subject's order, which packs change: each batch measures its own.
    StepRun run{.total = 0};
    std::vector<StepOutcome> outcomes;
    std::unique_ptr<Learner> learner;
    for (const int64_t ranks : {1, 2}) {
        PackPlan plan = plan_epoch(lengths, packing, 0);
        const StepLayout layout{.accumulation = (plan.packs() + ranks - 1) / ranks, .ranks = ranks};
        deal_packs(plan, layout, visible);
        StepOutcome& sum = outcomes.emplace_back();
        for (int64_t rank = 0; rank < ranks; ++rank) {
            std::vector<Batch> own;
            for (int64_t micro = 0; micro < layout.accumulation; ++micro) {
                std::vector<const Sample*> pack;
                for (const int64_t i : plan.pack(layout.first_pack(0, micro, rank)))
                    pack.push_back(&subject.samples[static_cast<size_t>(i)]);
                own.push_back(make_batch({pack}, {.sharing = subject.sharing}));
            }
            if (!learner) {
                learner = subject.learner({.packs = 1, .length = packing.packing_length});
                run.total = subject.total(learner->objective());
            }
            StepOutcome outcome = run_step(*learner, own, run);
            if (rank == 0)
                sum = std::move(outcome);
            else
                sum += outcome;
        }
    }
    return finding_of(subject,
                      compare_outcomes(*learner, outcomes[1], outcomes[0], size_of_advantages(subject.separate())),
                      run.total);
}

Finding check_gradients(const Subject& exact) {
    Batch batch = exact.packed(2);
    const auto learner = exact.learner(BatchRoom::of({&batch, 1}));
    require(learner->weights().dtype == DType::f64, "central differences need a learner in double");
    if (!exact.reference.empty()) batch.reference = exact.reference;
    const Context ctx = learner->context();
    learner->begin_step();
    learner->accumulate(ctx, batch, {.total = learner->objective().total(batch)});
    double* const w = learner->weights().as<double>();
    const double* const g = learner->gradients().as<double>();
    const std::vector<double> gradient(g, g + learner->gradients().numel());
    const auto norm_of = [&](const Parameter& p) {
        double squares = 0;
        for (int64_t i = p.begin; i < p.begin + p.size(); ++i)
            squares += gradient[static_cast<size_t>(i)] * gradient[static_cast<size_t>(i)];
        return std::sqrt(squares);
    };
    double largest = 0;
    for (const Parameter& p : learner->parameters().all()) largest = std::max(largest, norm_of(p));
    Finding worst{.bound = 1e-6};
    for (const Parameter& p : learner->parameters().all()) {
        const double norm = norm_of(p), step = 1e-5;
        if (norm == 0) continue;
        const std::vector<double> before(w + p.begin, w + p.begin + p.size());
        const auto loss_at = [&](double along) {
            for (size_t i = 0; i < before.size(); ++i)
                w[p.begin + static_cast<int64_t>(i)] =
                    before[i] + along * gradient[static_cast<size_t>(p.begin) + i] / norm;
            return learner->evaluate(ctx, batch).mean();
        };
        const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
        std::ranges::copy(before, w + p.begin);
        // Relative to the gradient, with a lower limit for one near zero: differences are rounded themselves.
        const double error = std::abs(slope - norm) / std::max(norm, 1e-2 * largest);
        if (!(error <= worst.found)) worst.found = error, worst.where = fmt::format("{}, {}", p.name, exact.name);
    }
    return worst;
}

Finding check_device_gradients(const Subject& subject, const Subject& exact) {
    const Batch batch = subject.packed(3);
    const BatchRoom room = BatchRoom::of({&batch, 1});
    const auto learner = subject.learner(room), in_double = exact.learner(room);
    const StepRun run{.total = subject.total(learner->objective()), .reference = exact.reference};
    const StepOutcome a = run_step(*learner, {batch}, run), b = run_step(*in_double, {batch}, run);
    const Gap gap = compare_outcomes(*learner, a, b).gradients;
    return {.found = gap.value, .bound = 0.02, .where = subject.name};
}

}  // namespace colonnade
