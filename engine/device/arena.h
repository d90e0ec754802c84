#pragma once
// Arena: one allocation for the big buffers of a run (weights, gradients, optimizer state, activations), planned before
// it is made. Lay the buffers out on a planning arena (its tensors have sizes but no memory), print the table, then lay
// them out again on a real arena of the planned size:
//
//     Arena plan(Device::cpu);                        // planning: counts
//     Activations::lay_out(plan, shape);
//     puts(plan.table().c_str());
//     Arena arena(Device::cpu, plan.bytes());         // allocates, or throws Exit::memory with the figures
//     Activations acts = Activations::lay_out(arena, shape);
//
// Buffers that live for one batch are laid out after a mark() and given back by release(). Batches then share memory,
// and the plan counts the high-water mark.

#include <memory>
#include <string>
#include <vector>

#include "engine/device/tensor.h"

namespace colonnade {

class Gpu;

class Arena {
  public:
    static constexpr size_t alignment = 256;  ///< bytes; the best for cuBLAS, and enough for 128-bit loads

    /// A planning arena: counts, without memory.
    explicit Arena(Device device);
    /// A real arena of `bytes`, zeroed. Throws Exit::memory if they are not available.
    Arena(Device device, size_t bytes);
    /// An arena in memory of the caller, which must outlive what is laid out in it.
    Arena(Device device, void* memory, size_t bytes);
    /// A real arena in host memory, zeroed, whose pages are there before their first use; `gpu`: pinned, for copies beside
    /// its work. Throws Exit::memory if that is not available.
    static Arena in_host_memory(Gpu* gpu, size_t bytes);
    Arena(Arena&&) = default;
    Arena& operator=(Arena&&) = default;

    /// A contiguous tensor, counted under `group` ("weights", "activations", ...). Throws Exit::internal if the arena
    /// is full.
    Tensor tensor(const std::string& group, DType dtype, std::initializer_list<int64_t> shape);

    /// The current position; release() returns to it.
    size_t mark() const { return used_; }
    void release(size_t mark) { used_ = mark; }

    Device device() const { return device_; }
    bool planning() const { return !memory_; }
    size_t bytes() const { return high_water_; }  ///< high-water mark
    /// One line per group ("weights 12.3 MiB"), then the peak.
    std::string table() const;
    /// (group, bytes) in order of first use.
    const std::vector<std::pair<std::string, size_t>>& groups() const { return groups_; }

  private:
    Device device_;
    std::shared_ptr<void> memory_;
    size_t capacity_ = 0, used_ = 0, high_water_ = 0;
    std::vector<std::pair<std::string, size_t>> groups_;
};

}  // namespace colonnade
