#include "data/packing/loader.h"

#include "engine/device/error.h"

namespace colonnade {

Loader::Loader(const TokenStore& store, PackSchedule schedule, LoaderOptions options)
    : store_(store),
      schedule_(std::move(schedule)),
      options_(options),
      layout_(schedule_.settings().layout),
      total_steps_(schedule_.total_steps()) {
    require(static_cast<int64_t>(schedule_.lengths().size()) == store.size(),
            "schedule of {} samples for a store of {}", schedule_.lengths().size(), store.size());
    require(options.document_mask || !schedule_.shares(), "without document_mask, samples share nothing");
    require(options.rank >= 0 && options.rank < layout_.ranks, "rank {} of {}", options.rank, layout_.ranks);
    require(options.start_step >= 0 && options.align >= 1 && options.prefetch >= 1,
            "loader: start step {}, align {}, prefetch {}", options.start_step, options.align, options.prefetch);
    if (options_.mismatched && options_.mismatched->empty()) options_.mismatched = nullptr;
    const int64_t sequences = store.sequence_offsets().back() + (options_.mismatched ? store.size() : 0);
    require(options.reference.empty() || std::ssize(options.reference) == sequences,
            "loader: {} reference log-probabilities for {} sequences", options.reference.size(), sequences);
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

std::optional<LoadedBatch> Loader::next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || finished_; });
    if (ready_.empty()) {
        if (error_) std::rethrow_exception(error_);
        return std::nullopt;
    }
    LoadedBatch batch = std::move(ready_.front());
    ready_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return batch;
}

bool Loader::push(LoadedBatch&& batch, const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [&] { return static_cast<int64_t>(ready_.size()) < options_.prefetch; }))
        return false;
    ready_.push_back(std::move(batch));
    lock.unlock();
    changed_.notify_all();
    return true;
}

Sample one_long_text(const std::vector<Sample>& samples) {
    Sample joined;
    Sequence& whole = joined.sequences.emplace_back();
    for (const Sample& sample : samples) {
        require(sample.sequences.size() == 1, "only samples of one sequence can be joined");
        const Sequence& own = sample.sequences[0];
        const auto begin = static_cast<int32_t>(whole.tokens.size());
        whole.tokens.insert(whole.tokens.end(), own.tokens.begin(), own.tokens.end());
        for (const auto& [first, last, weight] : own.learned)
            whole.learned.push_back({begin + first, begin + last, weight});
        whole.teacher.append(own.teacher);
    }
    return joined;
}

static std::vector<int64_t> samples_of(const PackPlan& plan, int64_t first_pack, int64_t packs) {
    std::vector<int64_t> samples;
    for (int64_t p = first_pack; p < first_pack + packs; ++p)
        for (const int64_t i : plan.pack(p)) samples.push_back(i);
    return samples;
}

Batch Loader::load(const PackPlan& plan, int64_t first_pack, Kind kind) const {
    const auto packs = static_cast<size_t>(layout_.per_device_batch);
    std::vector<std::vector<Sample>> samples(packs);
    std::vector<std::vector<const Sample*>> views(packs);
    for (size_t p = 0; p < packs; ++p) {
        for (const int64_t i : plan.pack(first_pack + static_cast<int64_t>(p)))
            samples[p].push_back(kind == Kind::own ? store_.sample(i) : options_.mismatched->sample(store_, i));
        if (options_.teacher)
            for (Sample& sample : samples[p]) options_.teacher->fill(sample);
        if (!options_.document_mask && !samples[p].empty()) samples[p].assign(1, one_long_text(samples[p]));
        for (const Sample& sample : samples[p]) views[p].push_back(&sample);
    }
    Batch batch =
        make_batch(views, {.align = options_.align, .sharing = schedule_.shares() ? Sharing::row : Sharing::sample});
    batch.reference = reference_of(samples_of(plan, first_pack, layout_.per_device_batch), kind);
    return batch;
}

std::vector<double> Loader::reference_of(const std::vector<int64_t>& samples, Kind kind) const {
    std::vector<double> values;
    if (options_.reference.empty()) return values;
    const std::vector<int64_t>& offsets = store_.sequence_offsets();
    for (const int64_t i : samples) {
        const bool own = kind == Kind::own;
        const int64_t begin = own ? offsets[static_cast<size_t>(i)] : offsets.back() + i;
        const int64_t end = own ? offsets[static_cast<size_t>(i) + 1] : begin + 1;
        values.insert(values.end(), options_.reference.begin() + begin, options_.reference.begin() + end);
    }
    return values;
}

std::vector<Batch> Loader::load_mismatched(const PackPlan& plan, int64_t epoch_step) const {
    std::vector<Batch> batches;
    for (int64_t micro = 0; micro < layout_.accumulation && options_.mismatched; ++micro)
        batches.push_back(load(plan, layout_.first_pack(epoch_step, micro, options_.rank), Kind::mismatched));
    return batches;
}

void Loader::load_all(const std::stop_token& stop) {
    const std::vector<int64_t> lengths = store_.lengths();
    const std::vector<double> weights = store_.target_weights();
    const std::vector<PairTotals> pairs = store_.pairs();
    for (int64_t step = options_.start_step; step < total_steps_; ++step) {
        const auto [epoch, epoch_step] = schedule_.locate(step);
        const int64_t epoch_steps = schedule_.steps_in(epoch);
        const PackPlan& plan = schedule_.plan(epoch);
        const StepTotals totals = step_totals(plan, layout_, epoch_step, lengths, weights, pairs);
        for (int64_t micro = 0; micro < layout_.accumulation; ++micro) {
            const int64_t first_pack = layout_.first_pack(epoch_step, micro, options_.rank);
            LoadedBatch loaded{.batch = load(plan, first_pack, Kind::own),
                               .samples = samples_of(plan, first_pack, layout_.per_device_batch),
                               .step = step,
                               .micro = micro,
                               .epoch = epoch,
                               .epoch_step = epoch_step,
                               .epoch_steps = epoch_steps,
                               .step_totals = totals};
            if (micro == 0) loaded.mismatched = load_mismatched(plan, epoch_step);
            if (!push(std::move(loaded), stop)) return;
        }
    }
}

void Loader::run(const std::stop_token& stop) {
    std::exception_ptr error;
    try {
        load_all(stop);
    } catch (...) {
        error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    error_ = error;
    finished_ = true;
    changed_.notify_all();
}

}  // namespace colonnade
