#pragma once
// Programmatic dependent launch, from sm_90 on: a kernel starts as soon as the one before it in the stream allows it and
// leaves room, and waits on its own for the results that it reads. Kernels that follow each other closely then hide each
// other's start. Elsewhere the three functions change nothing.
//
// A kernel that is launched this way calls wait_for_previous_kernels() in every thread before it reads what any earlier
// kernel wrote and before its first write. Since all kernels of a chain do so, the end of one means the end of all
// before it.

#include "engine/device/gpu.cuh"

namespace colonnade {

/// The next kernel may start. Its wait still lasts until this one has ended.
__device__ inline void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ inline void wait_for_previous_kernels() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

struct LaunchShape {
    dim3 ctas;
    unsigned threads;
};
template <typename... Parameters, typename... Args>
void launch_dependent(const Context& ctx, void (*kernel)(Parameters...), const LaunchShape& shape,
                      const Args&... args) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = shape.ctas;
    config.blockDim = dim3(shape.threads);
    config.stream = stream_of(ctx);
    config.attrs = &attribute;
    config.numAttrs = ctx.gpu->compute_capability() >= 90 ? 1 : 0;
    check_cuda(cudaLaunchKernelEx(&config, kernel, args...), "cudaLaunchKernelEx");
}

}  // namespace colonnade
