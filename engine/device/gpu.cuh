#pragma once
// For .cu files: checks of CUDA calls, the context's stream, and typed device pointers.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "engine/device/context.h"
#include "engine/device/gpu.h"

namespace colonnade {

/// Throws if a CUDA call failed: Exit::memory, or Exit::peer with CUDA's error text.
void check_cuda(cudaError_t status, const char* what);

/// Call after a launch: reports a bad launch configuration. A fault inside the kernel shows at the next wait.
inline void check_launch(const char* kernel) {
    check_cuda(cudaGetLastError(), kernel);
}

inline cudaStream_t stream_of(const Context& ctx) {
    return ctx.gpu->stream();
}

template <typename T>
struct device_type {
    using type = T;
};
template <>
struct device_type<bf16> {
    using type = __nv_bfloat16;
};

/// The tensor's memory as kernels see it: as_device<bf16>(t) is a __nv_bfloat16*. Throws if T is not the dtype.
template <typename T>
auto* as_device(const Tensor& tensor) {
    return reinterpret_cast<typename device_type<T>::type*>(tensor.as<T>());
}

}  // namespace colonnade
