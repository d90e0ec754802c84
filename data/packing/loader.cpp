#include "data/packing/loader.h"

#include "engine/device/error.h"

namespace colonnade {

Loader::Loader(const TokenStore& store, PackSchedule schedule, LoaderOptions options)
    : store_(store),
      schedule_(std::move(schedule)),
      options_(options),
      layout_(schedule_.settings().layout),
      total_steps_(schedule_.total_steps()),
      branch_offsets_(options.reference.empty() ? std::vector<int64_t>() : store.branch_offsets()) {
    require(static_cast<int64_t>(schedule_.lengths().size()) == store.size(),
            "schedule of {} samples for a store of {}", schedule_.lengths().size(), store.size());
    require(options.rank >= 0 && options.rank < layout_.ranks, "rank {} of {}", options.rank, layout_.ranks);
    require(options.start_step >= 0 && options.align >= 1 && options.prefetch >= 1,
            "loader: start step {}, align {}, prefetch {}", options.start_step, options.align, options.prefetch);
    require(options.reference.empty() || std::ssize(options.reference) == branch_offsets_.back(),
            "loader: {} reference log-probabilities for {} branches", options.reference.size(),
            branch_offsets_.empty() ? 0 : branch_offsets_.back());
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

/// Joins the samples of a pack to one sample with one branch. The first token of each sample keeps weight 0, so that
/// the totals do not change.
static Sample join(const std::vector<Sample>& samples) {
    Sample joined;
    joined.branch_begins = {0};
    for (const Sample& sample : samples) {
        require(sample.branch_begins == joined.branch_begins, "only samples of one branch can be joined");
        const size_t begin = joined.tokens.size();
        joined.tokens.insert(joined.tokens.end(), sample.tokens.begin(), sample.tokens.end());
        joined.weights.insert(joined.weights.end(), sample.weights.begin(), sample.weights.end());
        joined.weights[begin] = 0;
    }
    return joined;
}

Batch Loader::load(const PackPlan& plan, int64_t first_pack) const {
    const auto packs = static_cast<size_t>(layout_.per_device_batch);
    std::vector<std::vector<Sample>> samples(packs);
    std::vector<std::vector<const Sample*>> views(packs);
    for (size_t p = 0; p < packs; ++p) {
        for (const int64_t i : plan.pack(first_pack + static_cast<int64_t>(p))) samples[p].push_back(store_.sample(i));
        if (!options_.document_mask && !samples[p].empty()) samples[p].assign(1, join(samples[p]));
        for (const Sample& sample : samples[p]) views[p].push_back(&sample);
    }
    return make_batch(views, options_.align);
}

std::vector<double> Loader::reference_of(const std::vector<int64_t>& samples) const {
    std::vector<double> values;
    if (options_.reference.empty()) return values;
    for (const int64_t i : samples)
        values.insert(values.end(), options_.reference.begin() + branch_offsets_[i],
                      options_.reference.begin() + branch_offsets_[i + 1]);
    return values;
}

void Loader::load_all(const std::stop_token& stop) {
    const std::vector<double> weights = store_.target_weights(), pairs = store_.pairs();
    for (int64_t step = options_.start_step; step < total_steps_; ++step) {
        const auto [epoch, epoch_step] = schedule_.locate(step);
        const int64_t epoch_steps = schedule_.steps_in(epoch);
        const PackPlan& plan = schedule_.plan(epoch);
        const StepTotals totals = step_totals(plan, layout_, epoch_step, schedule_.lengths(), weights, pairs);
        for (int64_t micro = 0; micro < layout_.accumulation; ++micro) {
            const int64_t first_pack = layout_.first_pack(epoch_step, micro, options_.rank);
            std::vector<int64_t> samples;
            for (int64_t p = first_pack; p < first_pack + layout_.per_device_batch; ++p)
                for (const int64_t i : plan.pack(p)) samples.push_back(i);
            Batch batch = load(plan, first_pack);
            batch.reference = reference_of(samples);
            LoadedBatch loaded{.batch = std::move(batch),
                               .samples = std::move(samples),
                               .step = step,
                               .micro = micro,
                               .epoch = epoch,
                               .epoch_step = epoch_step,
                               .epoch_steps = epoch_steps,
                               .step_totals = totals};
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
