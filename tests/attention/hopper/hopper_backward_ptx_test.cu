// Further instructions of Hopper's backward, each on its own, compared with plain loops on the host.

#include "attention/hopper/ptx_backward.cuh"

#include <gtest/gtest.h>

#include "tests/support/hopper_case.cuh"

namespace colonnade {
namespace {

using namespace hopper;

class HopperBackwardPtx : public HopperCase {};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// Copies row-major global memory [rows, columns] to a tile of slabs.
__device__ void fill_tile(char* tile, const __nv_bfloat16* from, int rows, int columns) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * columns; i += static_cast<int>(blockDim.x)) {
        const int row = i / columns, column = i % columns, chunk = column % 64 / 8 ^ row % 8;
        *reinterpret_cast<__nv_bfloat16*>(tile + column / 64 * rows * 128 + row * 128 + chunk * 16 + column % 8 * 2) =
            from[i];
    }
}
__device__ void write_accumulator(float* out, const float (&d)[32]) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 32; ++i)
        out[(16 * warp + lane / 4 + 8 * (i / 2 % 2)) * 64 + 8 * (i / 4) + 2 * (lane % 4) + i % 2] = d[i];
}
#endif

/// out [64, 64] = A B^T over `depth` columns; A is rows 64 .. 127 of its tile.
template <int depth>
__global__ void __launch_bounds__(128) by_rows(float* out, const __nv_bfloat16* a, const __nv_bfloat16* b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    char *first = aligned_memory(), *second = first + depth / 64 * 128 * 128;
    fill_tile(first, a, 128, depth);
    fill_tile(second, b, 64, depth);
    fence_async();
    __syncthreads();
    float d[32];
    begin_products();
#pragma unroll
    for (int step = 0; step < depth / 16; ++step)
        multiply_shared<false, false>(
            d, advance(k_major(shared_address(first) + 64 * 128), step / 4 * 128 * 128 + step % 4 * 32),
            advance(k_major(shared_address(second)), step / 4 * 64 * 128 + step % 4 * 32), step > 0);
    commit_products();
    wait_products<0>();
    hold(d);
    write_accumulator(out, d);
#endif
}

TEST_F(HopperBackwardPtx, ProductsOfRows) {
    for (const int64_t depth : {64, 128, 256}) {
        const Tensor a = integers(DType::bf16, {128, depth}, 1), b = integers(DType::bf16, {64, depth}, 2),
                     out = zeros(DType::f32, {64, 64});
        const auto kernel = depth == 64 ? by_rows<64> : depth == 128 ? by_rows<128> : by_rows<256>;
        launch(ctx(), kernel, 1, 128, out.as<float>(), as_device<bf16>(a), as_device<bf16>(b));
        const auto x = read(a), y = read(b), found = read(out);
        for (int64_t m = 0; m < 64; ++m)
            for (int64_t n = 0; n < 64; ++n) {
                double expected = 0;
                for (int64_t k = 0; k < depth; ++k)
                    expected += x[static_cast<size_t>((64 + m) * depth + k)] * y[static_cast<size_t>(n * depth + k)];
                ASSERT_EQ(found[static_cast<size_t>(m * 64 + n)], expected) << depth << ": " << m << ", " << n;
            }
    }
}

/// out [64, 64] = A^T B of A [128, 64] in two tiles of 64 rows, the layout of dS, and columns [64, 128) of B [128,
/// 128].
__global__ void __launch_bounds__(128) by_columns(float* out, const __nv_bfloat16* a, const __nv_bfloat16* b) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    char *first = aligned_memory(), *second = first + 128 * 128;
    fill_tile(first, a, 64, 64);
    fill_tile(first + 64 * 128, a + 64 * 64, 64, 64);
    fill_tile(second, b, 128, 128);
    fence_async();
    __syncthreads();
    float d[32];
    begin_products();
#pragma unroll
    for (int step = 0; step < 8; ++step)
        multiply_shared<true, true>(d, advance(mn_major(shared_address(first), 64 * 128), 2048 * step),
                                    advance(mn_major(shared_address(second) + 128 * 128, 128 * 128), 2048 * step),
                                    step > 0);
    commit_products();
    wait_products<0>();
    hold(d);
    write_accumulator(out, d);
#endif
}

TEST_F(HopperBackwardPtx, ProductsOfColumns) {
    const Tensor a = integers(DType::bf16, {128, 64}, 3), b = integers(DType::bf16, {128, 128}, 4),
                 out = zeros(DType::f32, {64, 64});
    launch(ctx(), by_columns, 1, 128, out.as<float>(), as_device<bf16>(a), as_device<bf16>(b));
    const auto x = read(a), y = read(b), found = read(out);
    for (int64_t m = 0; m < 64; ++m)
        for (int64_t n = 0; n < 64; ++n) {
            double expected = 0;
            for (int64_t k = 0; k < 128; ++k)
                expected += x[static_cast<size_t>(k * 64 + m)] * y[static_cast<size_t>(k * 128 + 64 + n)];
            ASSERT_EQ(found[static_cast<size_t>(m * 64 + n)], expected) << m << ", " << n;
        }
}

/// Every CTA adds out += from through shared memory, in turn if there is a ticket.
__global__ void __launch_bounds__(32) add_in_bulk(float* out, const float* from, uint32_t* ticket, float* seen) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    constexpr uint32_t bytes = 16384;
    char* memory = aligned_memory();
    const uint32_t address = shared_address(memory), barrier = address + bytes;
    if (threadIdx.x != 0) return;
    init_barrier(barrier, 1);
    publish_barriers();
    arrive_expecting(barrier, bytes);
    load_bytes(address, from, bytes, barrier);
    wait(barrier, 0);
    // Each CTA adds its own multiple of the loaded values.
    for (uint32_t i = 0; i < bytes / 4; ++i) reinterpret_cast<float*>(memory)[i] *= static_cast<float>(blockIdx.x + 1);
    fence_async();
    const uint32_t turn = gridDim.x - 1 - blockIdx.x;
    if (ticket != nullptr) {
        wait_ticket(ticket, turn);
        seen[turn] = *reinterpret_cast<volatile float*>(out);
    }
    add_floats(out, address, bytes);
    commit_stores();
    wait_stores_read();
    wait_stores();
    if (ticket != nullptr) pass_ticket(ticket);
#endif
}

TEST_F(HopperBackwardPtx, BulkSums) {
    const Tensor from = integers(DType::f32, {4096}, 5), out = zeros(DType::f32, {4096});
    launch(ctx(), add_in_bulk, 100, 32, out.as<float>(), from.as<float>(), nullptr, nullptr);
    const auto x = read(from), found = read(out);
    for (size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], 5050 * x[i]) << i;
}

/// Every CTA finds the sums of all CTAs with earlier turns, which are launched after it.
TEST_F(HopperBackwardPtx, TicketsOrderBulkSums) {
    constexpr int ctas = 100;
    const Tensor from = zeros(DType::f32, {4096}), out = zeros(DType::f32, {4096}), ticket = zeros(DType::i32, {1}),
                 seen = zeros(DType::f32, {ctas});
    write_values(ctx(), from, [](int64_t) { return 1.0; });
    launch(ctx(), add_in_bulk, ctas, 32, out.as<float>(), from.as<float>(),
           reinterpret_cast<uint32_t*>(ticket.as<int32_t>()), seen.as<float>());
    const auto found = read(seen);
    double expected = 0;
    for (int turn = 0; turn < ctas; ++turn) {
        ASSERT_EQ(found[static_cast<size_t>(turn)], expected) << "turn " << turn;
        expected += ctas - turn;
    }
}

}  // namespace
}  // namespace colonnade
