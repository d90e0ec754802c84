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
    size_t bytes = Arena::alignment;
    for (const StateArray& array : arrays_of(learner))
        bytes += array.bytes() + 2 * array.parts.size() * Arena::alignment;
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
    const auto copy = [&](Tensor& t) {
        if (t.rank == 0) return;
        const Tensor to = memory_.tensor("copy", t.dtype, {t.numel()});
        if (t.device == Device::cpu)
            copy_host_memory(to, t);
        else
            copies.emplace_back(to.data, t);
        t = to;
    };
    LearnerState saved{.arrays = arrays_of(learner_), .adapters = {}, .updates = learner_.updates()};
    if (Gpu* const gpu = learner_.options().gpu; gpu && learner_.options().offloaded_optimizer > 0)
        gpu->synchronize();  // what is kept in host memory may be on its way there
    for (StateArray& array : saved.arrays)
        for (StatePart& part : array.parts) {
            copy(part.values);
            copy(part.top);
        }
    if (learner_.options().lora && learner_.sync().sharded())
        saved.adapters = collected_adapters(learner_);
    else if (learner_.options().lora)
        saved.adapters = [weights = saved.arrays.front()] { return weights.read(nullptr); };
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
