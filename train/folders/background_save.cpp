#include "train/folders/background_save.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/device/timing.h"

namespace colonnade {
namespace {

/// Sharded tensors are collected into memory of their own; the others are copied here.
size_t memory_of(const Learner& learner) {
    size_t bytes = 1;
    for (const Tensor* tensor : {&learner.weights(), &learner.m(), &learner.v()})
        if (!learner.sharded(*tensor)) bytes += tensor->bytes() + Arena::alignment;
    return bytes;
}

void copy_on_cpu(void* to, const Tensor& from) {
    constexpr int64_t piece = 1 << 22;
    const auto bytes = static_cast<int64_t>(from.bytes());
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < bytes; at += piece)
        std::memcpy(static_cast<char*>(to) + at, static_cast<const char*>(from.data) + at,
                    static_cast<size_t>(std::min(piece, bytes - at)));
}

}  // namespace

size_t state_copy_bytes(const ModelConfig& config, const LearnerOptions& options, Device device) {
    const ParameterList list = options.lora ? lora_parameters(config, *options.lora) : ParameterList(config);
    const bool shards = options.sync.ranks > 1 && options.sync.zero_stage > 0;
    const DType master = sum_dtype(options.dtype_on(device));
    const DType moments = device == Device::cuda && !shards ? options.moments : master;
    return static_cast<size_t>(list.size()) * (bytes_of(master) + 2 * bytes_of(moments));
}

BackgroundSave::BackgroundSave(const Learner& learner) : learner_(learner), memory_(Device::cpu, memory_of(learner)) {
    const auto bytes = static_cast<int64_t>(memory_of(learner));
    char* const memory = static_cast<char*>(memory_.tensor("copy", DType::u8, {0}).data);
    // Pages are taken now and not in the first save: a first write of a page costs more than the copy into it.
    ::madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < bytes; at += 4096) memory[at] = 0;
    if (Gpu* const gpu = learner.options().gpu)
        side_ = std::make_unique<SideCopy>(*gpu, memory, static_cast<size_t>(bytes));
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
    const auto copy = [&](const Tensor& from) -> std::function<HostCopy()> {
        if (learner_.sharded(from)) return [whole = learner_.whole(from)] { return whole; };
        const Tensor to = memory_.tensor("copy", from.dtype, {from.numel()});
        if (side_)
            copies.emplace_back(to.data, from);
        else
            copy_on_cpu(to.data, from);
        return [to] { return HostCopy::of(nullptr, to); };  // `to` itself, because it is in host memory
    };
    const LearnerState saved{copy(learner_.weights()), copy(learner_.m()), copy(learner_.v()), learner_.updates()};
    if (side_) side_->begin(copies);
    return saved;
}

void BackgroundSave::begin(const std::string& folder, const TrainerState& state, int64_t keep) {
    require(!thread_.joinable(), "{}: the save of {} is still under way", folder, saved_.folder);
    began_ = std::chrono::steady_clock::now();
    saved_ = {.folder = folder};
    done_ = false;
    thread_ = std::thread([this, saved = copy_state(), state, keep] {
        try {
            write(saved, state, keep);
        } catch (...) {
            error_ = std::current_exception();
        }
        done_ = true;
    });
}

void BackgroundSave::write(const LearnerState& saved, const TrainerState& state, int64_t keep) {
    // Linux has a priority per thread, which the threads that this one starts inherit: training comes first.
    ::setpriority(PRIO_PROCESS, 0, 5);
    if (side_) side_->wait();
    saved_.bytes = write_checkpoint(saved_.folder, learner_, saved, state);
    saved_.seconds = seconds_since(began_);
    rotate_checkpoints(std::filesystem::path(saved_.folder).parent_path(), keep);
}

void BackgroundSave::hold() {
    if (side_) side_->hold();
}

std::optional<SavedCheckpoint> BackgroundSave::poll() {
    return done_ ? wait() : std::nullopt;
}

std::optional<SavedCheckpoint> BackgroundSave::wait() {
    if (!thread_.joinable()) return {};
    thread_.join();
    done_ = false;
    if (const std::exception_ptr error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
    return saved_;
}

}  // namespace colonnade
