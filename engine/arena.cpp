#include "engine/arena.h"

#include <cstdlib>
#include <cstring>

namespace colonnade {

std::string human_bytes(size_t bytes) {
    static const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes);
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < std::size(units)) value /= 1024, ++unit;
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, units[unit]);
}

Arena::Arena(Device device) : device_(device) {}

Arena::Arena(Device device, size_t bytes) : device_(device), capacity_(bytes) {
    require(device == Device::cpu, "the arena of this build lives on the CPU");
    const size_t rounded = (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, rounded);
    if (!memory) fail(Exit::memory, "not enough memory: {} asked for", human_bytes(bytes));
    std::memset(memory, 0, rounded);
    memory_ = std::shared_ptr<void>(memory, std::free);
}

Tensor Arena::tensor(const std::string& group, DType dtype, std::initializer_list<int64_t> shape) {
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
