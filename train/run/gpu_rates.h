#pragma once
// What a GPU can do by its data sheet. Predictions (train/run/step_time.h) and MFU compare with it.

#include <string_view>

namespace colonnade {

struct GpuRates {
    double bf16 = 0;    ///< dense FLOP/s
    double memory = 0;  ///< bytes/s
    /// Bytes/s between the GPU and pinned host memory, each way while the other way is as busy. Not of a data sheet: 53
    /// GB/s were measured on one H200 host (PCIe 5; docs/learning.md); PCIe 4 counts as half.
    double bus = 0;
    bool known() const { return bf16 > 0; }
};

/// By the name that the driver reports; all 0 if it is unknown.
GpuRates gpu_rates(std::string_view device_name);

}  // namespace colonnade
