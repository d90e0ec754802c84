#pragma once
// The GPU of a test process: made once; null without a CUDA device. Tests that need it then skip.

#include <memory>

#include "engine/device/device.h"
#include "engine/device/gpu.h"

namespace colonnade {

inline Gpu* test_gpu() {
    static const std::unique_ptr<Gpu> gpu = cuda_devices().empty() ? nullptr : std::make_unique<Gpu>();
    return gpu.get();
}

}  // namespace colonnade
