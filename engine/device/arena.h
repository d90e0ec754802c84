#pragma once
// Arena: the big buffers of a run (weights, gradients, optimizer state, activations) come from one allocation that is
// planned first. Lay a thing out once on a planning arena
// (its tensors have no memory, only sizes), print the table, then lay it out again on a real one of the planned size:
//
//     Arena plan(Device::cpu);                        // planning: counts
//     Activations::lay_out(plan, shape);
//     puts(plan.table().c_str());
//     Arena arena(Device::cpu, plan.bytes());         // allocates, or throws Exit::memory with the figures
//     Activations acts = Activations::lay_out(arena, shape);
//
// What lives for one batch only is laid out behind a mark() and given back by release(): batches share memory, and the
// plan counts the high-water mark.

#include <memory>
#include <string>
#include <vector>

#include "engine/device/tensor.h"

namespace colonnade {

class Arena {
  public:
    static constexpr size_t alignment = 256;  ///< bytes; what cuBLAS and 128-bit loads like best

    /// A planning arena.
    explicit Arena(Device device);
    /// A real arena of `bytes`, zeroed.
    Arena(Device device, size_t bytes);
    Arena(Arena&&) = default;
    Arena& operator=(Arena&&) = default;

    /// A contiguous tensor, counted under `group` ("weights", "activations", ...).
    Tensor tensor(const std::string& group, DType dtype, std::initializer_list<int64_t> shape);

    /// The point to which release() goes back.
    size_t mark() const { return used_; }
    void release(size_t mark) { used_ = mark; }

    Device device() const { return device_; }
    bool planning() const { return !memory_; }
    size_t bytes() const { return high_water_; }  ///< high-water mark
    /// "weights 12.3 MiB" line by line, then the peak.
    std::string table() const;
    /// (group, bytes) in order of first use.
    const std::vector<std::pair<std::string, size_t>>& groups() const { return groups_; }

  private:
    Device device_;
    std::shared_ptr<void> memory_;
    size_t capacity_ = 0, used_ = 0, high_water_ = 0;
    std::vector<std::pair<std::string, size_t>> groups_;
};

/// "1.50 GiB", "12.3 MiB", "640 B".
std::string human_bytes(size_t bytes);

}  // namespace colonnade
