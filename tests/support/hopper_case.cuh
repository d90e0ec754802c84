#pragma once
// For tests of Hopper's instructions: a fixture that skips without a Hopper GPU, and the launch of test kernels.

#include <gtest/gtest.h>

#include <memory>

#include "attention/tensor_values.h"
#include "engine/device/arena.h"
#include "engine/device/gpu.cuh"
#include "engine/device/hopper/ptx.cuh"
#include "engine/device/philox.h"
#include "tests/support/test_gpu.h"

namespace colonnade {

class HopperCase : public testing::Test {
  protected:
    void SetUp() override {
        if (!test_gpu() || !test_gpu()->runs_hopper_kernels()) GTEST_SKIP() << "no Hopper GPU";
        arena_ = std::make_unique<Arena>(Device::cuda, size_t{16} << 20);
    }
    const Context& ctx() const {
        static const Context context{.device = Device::cuda, .gpu = test_gpu()};
        return context;
    }
    /// Random small integers, exact in every format.
    Tensor integers(DType dtype, std::initializer_list<int64_t> shape, uint64_t stream) {
        const Tensor t = arena_->tensor("", dtype, shape);
        write_values(ctx(), t, [&](int64_t i) {
            return static_cast<double>(Philox{3, stream}.below(static_cast<uint64_t>(i), 9)) - 4;
        });
        return t;
    }
    Tensor zeros(DType dtype, std::initializer_list<int64_t> shape) {
        const Tensor t = arena_->tensor("", dtype, shape);
        ctx().gpu->zero(t);
        return t;
    }
    std::vector<double> read(const Tensor& t) { return read_values(ctx(), t); }

  private:
    std::unique_ptr<Arena> arena_;
};

template <typename Kernel, typename... Args>
void launch(const Context& ctx, Kernel* kernel, unsigned ctas, int threads, Args... args) {
    constexpr int bytes = 100 * 1024;
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "test kernel");
    kernel<<<ctas, threads, bytes, stream_of(ctx)>>>(args...);
    check_launch("test kernel");
    ctx.gpu->synchronize();
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// Dynamic shared memory of a kernel from its first 1024-byte boundary.
__device__ inline char* aligned_memory() {
    extern __shared__ char shared[];
    const uint32_t start = hopper::shared_address(shared);
    return shared + ((start + 1023) / 1024 * 1024 - start);
}
#endif

}  // namespace colonnade
