#include "engine/device/arena.h"

#include <sys/mman.h>

#include <algorithm>

#include "engine/device/gpu.h"
#include "engine/device/host_memory.h"
#include "engine/device/human_units.h"

namespace colonnade {

Arena::Arena(Device device) : device_(device) {}

static std::shared_ptr<void> allocate_on_cpu(size_t bytes) {
    if (const size_t available = available_memory(); bytes > available)
        fail(Exit::memory, "not enough memory: {} requested, {} available", human_bytes(bytes), human_bytes(available));
    // Fresh pages are zero, and are placed on the NUMA node of the thread that first writes them.
    const size_t size = std::max<size_t>(bytes, 1);
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail(Exit::memory, "not enough memory: {} requested; {}", human_bytes(bytes), memory_in_use());
    return std::shared_ptr<void>(memory, [size](void* p) { ::munmap(p, size); });
}

Arena::Arena(Device device, size_t bytes)
    : device_(device),
      memory_(device == Device::cpu ? allocate_on_cpu(bytes) : allocate_on_gpu(bytes)),
      capacity_(bytes) {}

Arena Arena::in_host_memory(Gpu* gpu, size_t bytes) {
    Arena arena(Device::cpu, bytes);
    char* const memory = static_cast<char*>(arena.memory_.get());
    ::madvise(memory, bytes, MADV_HUGEPAGE);
    constexpr size_t page = 4096;
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < bytes; at += page) memory[at] = 0;
    if (gpu) arena.memory_ = pinned(arena.memory_, bytes);
    return arena;
}

Arena::Arena(Device device, void* memory, size_t bytes)
    : device_(device), memory_(memory, [](void*) {}), capacity_(bytes) {
    require(memory != nullptr, "an arena of {} in no memory", human_bytes(bytes));
}

Tensor Arena::tensor(const std::string& group, DType dtype, std::initializer_list<int64_t> shape) {
    uint64_t wanted = bytes_of(dtype);
    for (const int64_t d : shape)
        if (d < 0 || __builtin_mul_overflow(wanted, static_cast<uint64_t>(d), &wanted) || wanted > uint64_t{1} << 60)
            fail(Exit::memory, "a tensor of [{}] for {} is too large to address", fmt::join(shape, ", "), group);
    Tensor t(nullptr, dtype, shape, device_);
    const size_t bytes = (t.bytes() + alignment - 1) / alignment * alignment;
    if (memory_) {
        require(bytes <= capacity_ - used_, "arena of {} cannot hold {} more for {}", human_bytes(capacity_),
                human_bytes(bytes), group);
        t.data = static_cast<char*>(memory_.get()) + used_;
    }
    used_ += bytes;
    high_water_ = std::max(high_water_, used_);
    for (auto& [name, sum] : groups_)
        if (name == group) return sum += bytes, t;
    groups_.emplace_back(group, bytes);
    return t;
}

std::string Arena::table() const {
    std::string s;
    for (const auto& [name, sum] : groups_) s += fmt::format("  {:<24} {:>12}\n", name, human_bytes(sum));
    return s + fmt::format("  {:<24} {:>12}\n", "peak", human_bytes(high_water_));
}

}  // namespace colonnade
