#include "train/folders/background_save.h"

#include <sys/resource.h>

#include <cstdio>
#include <filesystem>
#include <utility>

#include "engine/device/host_transfers.h"
#include "engine/device/timing.h"

namespace colonnade {
namespace {

size_t memory_of(const Learner& learner) {
    size_t bytes =
        Arena::alignment + static_cast<size_t>(learner.sync().state_size()) * bytes_of(learner.weights().dtype);
    for (const OptimizerArray& array : learner.optimizer_state()) bytes += array.values.bytes() + Arena::alignment;
    return bytes;
}

}  // namespace

BackgroundSave::BackgroundSave(const Learner& learner, const Ranks& ranks, FurtherFiles further)
    : learner_(learner),
      ranks_(ranks),
      further_(std::move(further)),
      memory_(Arena::in_host_memory(learner.options().gpu, memory_of(learner))) {
    if (Gpu* const gpu = learner.options().gpu) side_ = std::make_unique<SideCopy>(*gpu);
}

BackgroundSave::~BackgroundSave() {
    try {
        if (wait()) fmt::print(stderr, "saved {}\n", saved_.folder);
    } catch (const std::exception& e) {
        fmt::print(stderr, "warning: {}\n", e.what());
    }
}

LearnerState BackgroundSave::copy_state() {
    memory_.release(0);
    std::vector<std::pair<void*, Tensor>> copies;
    const GradientSync& sync = learner_.sync();
    const auto copy = [&](const Tensor& from) -> std::function<HostCopy()> {
        const bool weights_of_all = from.numel() > sync.state_size();
        const Tensor to = memory_.tensor("copy", from.dtype, {weights_of_all ? sync.state_size() : from.numel()});
        if (side_)
            copies.emplace_back(to.data, from);
        else if (!weights_of_all)
            copy_host_memory(to, from);
        else
            for (int64_t at = 0; const Range& s : sync.state()) {
                copy_host_memory(to.slice(0, at, at + s.size()), from.slice(0, s.begin, s.end));
                at += s.size();
            }
        return [to] { return HostCopy::of(nullptr, to); };  // `to` itself, because it is in host memory
    };
    LearnerState saved{
        .weights = copy(learner_.weights()), .optimizer = {}, .adapters = {}, .updates = learner_.updates()};
    for (const OptimizerArray& array : learner_.optimizer_state()) saved.optimizer.push_back(copy(array.values));
    if (learner_.options().lora) saved.adapters = sync.sharded() ? collected_adapters(learner_) : saved.weights;
    if (side_) side_->begin(copies);
    return saved;
}

void BackgroundSave::start_thread(std::function<void()> work) {
    done_ = false;
    thread_ = std::thread([this, work = std::move(work)] {
        // Linux has a priority per thread, which the threads that this one starts inherit: training comes first.
        ::setpriority(PRIO_PROCESS, 0, 5);
        try {
            work();
        } catch (...) {
            error_ = std::current_exception();
        }
        done_ = true;
    });
}

void BackgroundSave::begin(const std::string& folder, const TrainerState& state, int64_t keep) {
    require(!save_, "{}: the save of {} is still under way", folder, saved_.folder);
    began_ = std::chrono::steady_clock::now();
    saved_ = {.folder = folder};
    rotation_ = Rotation::of(keep, state.best);
    save_ = std::make_unique<CheckpointSave>(folder, learner_, state, ranks_, further_);
    const LearnerState copy = copy_state();
    shares_under_way_ = ranks_.several();
    start_thread([this, saved = copy] {
        if (side_) side_->wait();
        save_->write(saved);
        if (ranks_.several()) return;
        save_->gather();
        commit();
    });
}

void BackgroundSave::commit() {
    saved_.bytes = save_->commit();
    saved_.seconds = seconds_since(began_);
    saved_.trouble = rotate_checkpoints(std::filesystem::path(saved_.folder).parent_path(), rotation_);
}

void BackgroundSave::end_shares() {
    thread_.join();
    done_ = shares_under_way_ = false;
    const std::exception_ptr error = std::exchange(error_, nullptr);
    std::unique_ptr<CheckpointSave> save = std::move(save_);  // an error on any rank ends it
    ranks_.together("checkpoint", [&] {
        if (error) std::rethrow_exception(error);
    });
    save->gather();
    if (!ranks_.first()) return;
    save_ = std::move(save);
    start_thread([this] { commit(); });
}

void BackgroundSave::hold() {
    if (side_) side_->hold();
}

std::optional<SavedCheckpoint> BackgroundSave::poll() {
    if (shares_under_way_ && ranks_.max("checkpoint", !done_) == 0) end_shares();
    return !shares_under_way_ && done_ ? wait() : std::nullopt;
}

std::optional<SavedCheckpoint> BackgroundSave::wait() {
    if (shares_under_way_) end_shares();
    if (!thread_.joinable()) return {};
    thread_.join();
    done_ = false;
    save_.reset();
    if (const std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
    return saved_;
}

}  // namespace colonnade
