#include "train/run/suspect_rows.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace colonnade {
namespace {

constexpr size_t rows_named = 6;

/// The samples whose loss or gradient is not finite when they are computed alone, because in attention a NaN reaches
/// the whole pack (0 * NaN). All samples if there is none, as it can be with dropout or without document_mask.
std::vector<int64_t> bad_samples(const BadStep& step, const LoadedBatch& loaded) {
    Learner& learner = step.learner;
    std::vector<int64_t> bad;
    for (size_t i = 0; i < loaded.samples.size(); ++i) {
        learner.begin_step();
        learner.accumulate(step.ctx, alone(step.store, loaded, i, step.loader.teacher),
                           {.total = learner.objective().total(loaded.step_totals)});
        if (!learner.is_finite(step.ctx)) bad.push_back(loaded.samples[i]);
    }
    return bad.empty() ? loaded.samples : bad;
}

std::string own_finding(const BadStep& step) {
    Learner& learner = step.learner;
    if (const std::string weight = learner.first_bad_weight(); !weight.empty()) return "the weights of " + weight;
    Loader loader(step.store, step.schedule, step.loader);
    learner.begin_mismatched();
    learner.begin_step();
    for (int64_t micro = 1; micro <= step.schedule.settings().layout.accumulation; ++micro) {
        const LoadedBatch loaded = loader.next().value();
        for (const Batch& mismatched : loaded.mismatched)
            for (const double logp : learner.measure(step.ctx, mismatched))
                if (!std::isfinite(logp)) return "the log-probability of a mismatched answer";
        learner.accumulate(step.ctx, loaded.batch, {.total = learner.objective().total(loaded.step_totals)});
        const std::string found = learner.first_not_finite(step.ctx);
        if (found.empty()) continue;
        const std::vector<int64_t> samples = bad_samples(step, loaded);
        const std::string where = step.ranks.several() ? fmt::format(" on rank {}", step.ranks.rank()) : "";
        return fmt::format("{} of micro-step {}{}, rows {}", found, micro, where,
                           row_list(places_of(step.store, samples)));
    }
    return "";
}

}  // namespace

Batch alone(const TokenStore& store, const LoadedBatch& loaded, size_t i, const TeacherFile* teacher) {
    Sample sample = store.sample(loaded.samples[i]);
    if (teacher) teacher->fill(sample);
    Batch batch = make_batch({{&sample}});
    const Batch& whole = loaded.batch;
    for (size_t s = 0; s < whole.reference.size(); ++s)
        if (static_cast<size_t>(whole.sequences[s].sample) == i) batch.reference.push_back(whole.reference[s]);
    return batch;
}

std::string row_list(const std::vector<std::string>& places) {
    const size_t shown = std::min(places.size(), rows_named);
    std::string text = fmt::format("{}", fmt::join(places.begin(), places.begin() + static_cast<int64_t>(shown), ", "));
    if (shown < places.size()) text += fmt::format(" and {} more", places.size() - shown);
    return text;
}

std::vector<std::string> places_of(const TokenStore& store, std::span<const int64_t> samples) {
    std::vector<std::string> places;
    std::set<std::string> known;
    for (const int64_t sample : samples)
        if (std::string place = store.place(sample); known.insert(place).second) places.push_back(std::move(place));
    return places;
}

std::string first_bad_number(const BadStep& step) {
    for (const std::string& found : step.ranks.gather("the step again", own_finding(step), Deadline::none))
        if (!found.empty()) return found;
    return "nothing when it is computed again: the sum over micro-steps or ranks overflows, or a device computed wrong "
           "numbers";
}

}  // namespace colonnade
