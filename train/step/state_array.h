#pragma once
// StateArray: an array of the training state as files have it, such as the weights or AdamW's m, wherever its numbers are:
// in the device's memory or in host memory, in one piece or in two halves (SplitFloat, engine/device/float16.h).

#include <string>
#include <vector>

#include "engine/device/host_copy.h"
#include "engine/ranks/communicator.h"

namespace colonnade {

/// Numbers of a StateArray that lie one after the other.
struct StatePart {
    Tensor values;  ///< flat; i16: the lower halves of f32 numbers
    Tensor top{};   ///< bf16: their upper halves; otherwise empty
};

struct StateArray {
    std::string name;                ///< in files: "adamw/m"
    DType dtype{};                   ///< of its numbers in files: f32 (f64 for a learner in double), u8
    std::vector<StatePart> parts{};  ///< of the slices of GradientSync::state(), one after the other
    int64_t elements = 1;            ///< of the flat buffers that one of its numbers stands for
    std::vector<Range> ranges{};     ///< of the flat buffers, which alone have numbers; empty: all elements have

    int64_t size() const;
    size_t bytes() const;  ///< of its parts
    /// The numbers that belong to a slice of the flat buffers.
    Range of(const Range& slice) const { return {index_of(slice.begin), index_of(slice.end)}; }

    /// Numbers [begin, end) in host memory, as `dtype`. They are the array's own memory if that has them so. Waits for the
    /// GPU.
    HostCopy read(Gpu* gpu, const Range& numbers) const;
    HostCopy read(Gpu* gpu) const { return read(gpu, {0, size()}); }
    /// Overwrites numbers [begin, begin + from.numel()); `from` is in host memory and has the dtype. What has fewer bits
    /// gets them rounded as SplitFloat::top. Waits for the GPU.
    void write(Gpu* gpu, int64_t begin, const Tensor& from) const;

  private:
    int64_t index_of(int64_t element) const;
};

}  // namespace colonnade
