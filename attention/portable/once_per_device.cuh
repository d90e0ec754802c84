#pragma once
// The attributes of a kernel belong to one device, and a process may use several.

#include <atomic>

#include "engine/device/gpu.cuh"

namespace colonnade::portable {

/// The result of prepare(), a number from 0 on, for the current device of the calling thread. It is called once for each
/// device, or more often if several threads are first at the same time. Each lambda has results of its own.
template <typename Prepare>
int once_per_device(const Prepare& prepare) {
    constexpr int most = 64;
    static std::atomic<int> results[most] = {};  // plus 1; 0: not known
    int device = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    require(device < most, "flashmask: CUDA device {}, expected 0..{}", device, most - 1);
    if (results[device] == 0) results[device] = prepare() + 1;
    return results[device] - 1;
}

}  // namespace colonnade::portable
