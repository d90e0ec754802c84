// Every instruction wrapper of engine/device/hopper/ptx.cuh on its own, compared with plain loops on the host.

#include "engine/device/hopper/ptx.cuh"

#include <gtest/gtest.h>

#include "engine/device/hopper/tensor_map.h"
#include "tests/support/hopper_case.cuh"

namespace colonnade {
namespace {

using namespace hopper;

constexpr int slab_rows = 128, slab_bytes = slab_rows * 128;

/// Byte offset of (row, column) in a swizzled tile.
__host__ __device__ int swizzled(int row, int column) {
    const int slab = column / 64, chunk = column % 64 / 8 ^ row % 8;
    return slab * slab_bytes + row * 128 + chunk * 16 + column % 8 * 2;
}

class HopperPtx : public HopperCase {};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// Copies row-major global memory to swizzled shared memory with ordinary stores.
__device__ void fill_tile(char* tile, const __nv_bfloat16* from, int rows, int columns) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * columns; i += static_cast<int>(blockDim.x))
        *reinterpret_cast<__nv_bfloat16*>(tile + swizzled(i / columns, i % columns)) = from[i];
}
/// Row and column of accumulator element i of this thread.
__device__ int accumulator_row(int i) {
    return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4 + 8 * (i / 2 % 2);
}
__device__ int accumulator_column(int i) {
    return 8 * (i / 4) + 2 * (static_cast<int>(threadIdx.x) % 4) + i % 2;
}
#endif

// --- mbarrier: 1000 values through a ring of three stages ------------------------------------------------------------

__global__ void ring(float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    constexpr uint32_t stages = 3;
    char* memory = aligned_memory();
    const uint32_t full = shared_address(memory), empty = full + 8 * stages;
    auto* values = reinterpret_cast<volatile int*>(memory + 1024);
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < stages; ++i) init_barrier(full + 8 * i, 1), init_barrier(empty + 8 * i, 2);
        publish_barriers();
    }
    __syncthreads();
    const uint32_t warp = threadIdx.x / 32;
    int sum = 0;
    for (uint32_t n = 0; n < 1000; ++n) {
        const uint32_t stage = n % stages, phase = n / stages & 1;
        if (warp == 0) {
            if (threadIdx.x == 0) {
                wait(empty + 8 * stage, phase ^ 1);
                values[stage] = static_cast<int>(n);
                arrive(full + 8 * stage);
            }
            __syncwarp();
        } else {
            wait(full + 8 * stage, phase);
            sum += values[stage];
            __syncwarp();
            if (threadIdx.x % 32 == 0) arrive(empty + 8 * stage);
        }
    }
    if (warp > 0) out[threadIdx.x - 32] = static_cast<float>(sum);
#endif
}

TEST_F(HopperPtx, BarriersPassAThousandValues) {
    const Tensor out = zeros(DType::f32, {64});
    launch(ctx(), ring, 1, 96, out.as<float>());
    for (const double sum : read(out)) ASSERT_EQ(sum, 499500);
}

// --- setmaxnreg and named barriers: two warpgroups take turns --------------------------------------------------------

__global__ void __launch_bounds__(384, 1) take_turns(float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    auto* count = reinterpret_cast<volatile int*>(aligned_memory());
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
    if (threadIdx.x < 128) {
        give_registers<40>();
    } else {
        take_registers<232>();
        const int warpgroup = static_cast<int>(threadIdx.x) / 128 - 1;
        if (warpgroup == 1) arrive_named(1, 256);
        for (int turn = 0; turn < 100; ++turn) {
            sync_named(1 + warpgroup, 256);
            if (threadIdx.x % 128 == 0) {
                out[*count] = static_cast<float>(warpgroup);
                *count = *count + 1;
            }
            sync_named(3 + warpgroup, 128);
            arrive_named(2 - warpgroup, 256);
        }
    }
#endif
}

TEST_F(HopperPtx, WarpgroupsTakeTurns) {
    const Tensor out = zeros(DType::f32, {200});
    launch(ctx(), take_turns, 1, 384, out.as<float>());
    const auto order = read(out);
    for (size_t i = 0; i < order.size(); ++i) ASSERT_EQ(order[i], static_cast<double>(i % 2)) << "turn " << i;
}

// --- TMA -------------------------------------------------------------------------------------------------------------

__global__ void load_box(const __grid_constant__ CUtensorMap map, uint16_t* out, int column, int head, int row,
                         int batch) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    char* memory = aligned_memory();
    const uint32_t barrier = shared_address(memory) + slab_bytes;
    if (threadIdx.x == 0) {
        prefetch_map(&map);
        init_barrier(barrier, 1);
        publish_barriers();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        arrive_expecting(barrier, slab_bytes);
        load_slab(shared_address(memory), &map, barrier, column, head, row, batch, evict_last);
    }
    wait(barrier, 0);
    for (int i = static_cast<int>(threadIdx.x); i < slab_bytes / 2; i += 128)
        out[i] = reinterpret_cast<uint16_t*>(memory)[i];
#endif
}

TEST_F(HopperPtx, TmaLoadsSwizzledSlabsAndZerosPastTheEnd) {
    constexpr int64_t batch = 2, tokens = 200, all_heads = 5, dim = 128;
    const Tensor packed = integers(DType::bf16, {batch, tokens, all_heads, dim}, 1), view = packed.slice(2, 1, 4);
    const auto values = read(packed);
    ASSERT_TRUE(has_tensor_map(view));
    const Tensor out = zeros(DType::bf16, {slab_rows * 64});
    for (const int row : {0, 64, 100, 199})
        for (const int column : {0, 64}) {
            launch(ctx(), load_box, 1, 128, make_tensor_map(view, slab_rows), reinterpret_cast<uint16_t*>(out.data),
                   column, 2, row, 1);
            const auto found = read(out);
            for (int r = 0; r < slab_rows; ++r)
                for (int c = 0; c < 64; ++c) {
                    const int64_t at = ((tokens + row + r) * all_heads + 1 + 2) * dim + column + c;
                    const double expected = row + r < tokens ? values[static_cast<size_t>(at)] : 0;
                    ASSERT_EQ(found[static_cast<size_t>(swizzled(r, c) / 2)], expected)
                        << "box at row " << row << ", column " << column << ": row " << r << ", column " << c;
                }
        }
}

__global__ void store_box(const __grid_constant__ CUtensorMap map, const __nv_bfloat16* from, int head, int row,
                          int batch) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    char* memory = aligned_memory();
    fill_tile(memory, from, 64, 64);
    fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        store_slab(&map, shared_address(memory), 64, head, row, batch);
        commit_stores();
        wait_stores_read();
        wait_stores();
    }
#endif
}

TEST_F(HopperPtx, TmaStoresAndClips) {
    constexpr int64_t batch = 2, tokens = 100, all_heads = 3, dim = 128;
    const Tensor from = integers(DType::bf16, {64, 64}, 2);
    const auto values = read(from);
    for (const int row : {0, 30, 64}) {
        const Tensor packed = zeros(DType::bf16, {batch, tokens, all_heads, dim}), view = packed.slice(2, 1, 3);
        launch(ctx(), store_box, 1, 128, make_tensor_map(view, 64), as_device<bf16>(from), 1, row, 0);
        const auto found = read(packed);
        for (int64_t i = 0; i < packed.numel(); ++i) {
            const int64_t d = i % dim, head = i / dim % all_heads, token = i / dim / all_heads % tokens,
                          b = i / dim / all_heads / tokens, r = token - row;
            const bool inside = b == 0 && head == 2 && d >= 64 && r >= 0 && r < 64;
            ASSERT_EQ(found[static_cast<size_t>(i)], inside ? values[static_cast<size_t>(r * 64 + d - 64)] : 0)
                << "box at row " << row << ": batch " << b << ", token " << token << ", head " << head << ", " << d;
        }
    }
}

// --- stmatrix: an accumulator's rows, rounded, to a swizzled slab ----------------------------------------------------

__global__ void store_accumulator(float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    char* memory = aligned_memory();
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const auto value = [](int i) { return static_cast<float>(accumulator_row(i) + accumulator_column(i) % 4 * 64); };
    const int row = 16 * warp + lane % 16;
    for (int j = 0; j < 8; j += 2) {
        const int chunk = (j + lane / 16) ^ row % 8;
        const uint32_t to = shared_address(memory) + static_cast<uint32_t>(row * 128 + chunk * 16);
        store_matrices(to, pack_bf16(value(4 * j), value(4 * j + 1)), pack_bf16(value(4 * j + 2), value(4 * j + 3)),
                       pack_bf16(value(4 * j + 4), value(4 * j + 5)), pack_bf16(value(4 * j + 6), value(4 * j + 7)));
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < 64 * 64; i += 128)
        out[i] = __bfloat162float(*reinterpret_cast<__nv_bfloat16*>(memory + swizzled(i / 64, i % 64)));
#endif
}

TEST_F(HopperPtx, StmatrixPutsFragmentsInRows) {
    const Tensor out = zeros(DType::f32, {64, 64});
    launch(ctx(), store_accumulator, 1, 128, out.as<float>());
    const auto found = read(out);
    for (int i = 0; i < 64 * 64; ++i)
        ASSERT_EQ(found[static_cast<size_t>(i)], i / 64 + i % 64 % 4 * 64) << "row " << i / 64 << ", column " << i % 64;
}

// --- wgmma -----------------------------------------------------------------------------------------------------------

template <int depth>
__global__ void __launch_bounds__(128) multiply_k_major(float* out, const __nv_bfloat16* a, const __nv_bfloat16* b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    char *memory = aligned_memory(), *second = memory + 2 * slab_bytes;
    fill_tile(memory, a, 64, depth);
    fill_tile(second, b, 128, depth);
    fence_async();
    __syncthreads();
    float d[64];
    begin_products();
#pragma unroll
    for (int step = 0; step < depth / 16; ++step) {
        const uint32_t bytes = step / 4 * slab_bytes + step % 4 * 32;
        multiply_shared(d, advance(k_major(shared_address(memory)), bytes),
                        advance(k_major(shared_address(second)), bytes), step > 0);
    }
    commit_products();
    wait_products<0>();
    hold(d);
#pragma unroll
    for (int i = 0; i < 64; ++i) out[accumulator_row(i) * 128 + accumulator_column(i)] = d[i];
#endif
}

TEST_F(HopperPtx, WgmmaOfKMajorOperandsFromSharedMemory) {
    for (const int64_t depth : {16, 64, 128}) {
        const Tensor a = integers(DType::bf16, {64, depth}, 3), b = integers(DType::bf16, {128, depth}, 4);
        const Tensor out = zeros(DType::f32, {64, 128});
        const auto kernel = depth == 16   ? multiply_k_major<16>
                            : depth == 64 ? multiply_k_major<64>
                                          : multiply_k_major<128>;
        launch(ctx(), kernel, 1, 128, out.as<float>(), as_device<bf16>(a), as_device<bf16>(b));
        const auto x = read(a), y = read(b), found = read(out);
        for (int64_t m = 0; m < 64; ++m)
            for (int64_t n = 0; n < 128; ++n) {
                double expected = 0;
                for (int64_t k = 0; k < depth; ++k)
                    expected += x[static_cast<size_t>(m * depth + k)] * y[static_cast<size_t>(n * depth + k)];
                ASSERT_EQ(found[static_cast<size_t>(m * 128 + n)], expected)
                    << "depth " << depth << ": row " << m << ", column " << n;
            }
    }
}

template <int width>
__global__ void __launch_bounds__(128)
    multiply_mn_major(float* out, const float* a, const __nv_bfloat16* b, int steps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    char* memory = aligned_memory();
    fill_tile(memory, b, 128, width);
    fence_async();
    __syncthreads();
    float d[width / 2];
#pragma unroll
    for (float& x : d) x = 0;
    for (int step = 0; step < steps; ++step) {
        uint32_t p[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float* from = a + accumulator_row(2 * i) * 128 + 16 * step + accumulator_column(2 * i);
            p[i] = pack_bf16(from[0], from[1]);
        }
        hold(d), hold(p);
        begin_products();
        const uint64_t values = mn_major(shared_address(memory), slab_bytes);
        multiply_registers(d, p, advance(values, static_cast<uint32_t>(2048 * step)));
        commit_products();
        wait_products<0>();
        hold(d);
    }
#pragma unroll
    for (int i = 0; i < width / 2; ++i) out[accumulator_row(i) * width + accumulator_column(i)] = d[i];
#endif
}

TEST_F(HopperPtx, WgmmaOfRegistersAndAnMnMajorOperand) {
    for (const int64_t width : {64, 128, 256})
        for (const int steps : {1, 8}) {
            const Tensor a = integers(DType::f32, {64, 128}, 5), b = integers(DType::bf16, {128, width}, 6);
            const Tensor out = zeros(DType::f32, {64, width});
            const auto kernel = width == 64    ? multiply_mn_major<64>
                                : width == 128 ? multiply_mn_major<128>
                                               : multiply_mn_major<256>;
            launch(ctx(), kernel, 1, 128, out.as<float>(), a.as<float>(), as_device<bf16>(b), steps);
            const auto x = read(a), y = read(b), found = read(out);
            for (int64_t m = 0; m < 64; ++m)
                for (int64_t n = 0; n < width; ++n) {
                    double expected = 0;
                    for (int64_t k = 0; k < 16 * steps; ++k)
                        expected += x[static_cast<size_t>(m * 128 + k)] * y[static_cast<size_t>(k * width + n)];
                    ASSERT_EQ(found[static_cast<size_t>(m * width + n)], expected)
                        << "width " << width << ", " << steps << " steps: row " << m << ", column " << n;
                }
        }
}

}  // namespace
}  // namespace colonnade
