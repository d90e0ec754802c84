#pragma once
// GEMM with SwiGLU or its gradient in the epilogue, on Hopper (sm_90a): the part that gated_linear.cu and
// gated_linear_backward.cu share.
//
// A tile is 128 tokens x 256 columns of the product. A stage of shared memory holds the tokens' rows and the weight's
// part for a depth (k) of 64.
//
// A CTA is persistent, one per multiprocessor. One warp loads by TMA, two warpgroups multiply 64 tokens each. Two CTAs
// form a cluster with 256 tokens and the same columns: each loads half of the weight's part for both, so L2 delivers 32
// KiB per stage and CTA instead of 48.
//
// At the end of a tile the tensor cores wait only while the sums are rounded. Rounded sums take half of the registers,
// and the pass's epilogue processes them in parts, while the next tile's products run.
//
// A pass defines
//     Maps             tensor maps, among them `in` for the tokens' rows and `weight`
//     columns          columns of ffn per tile
//     parts            parts of the epilogue, one per step
//     weight_mn_major  layout of the weight's part in a stage
//     load_weight(problem, half, step, column, load)   calls load(to, column, row) for each box of that half
//     Epilogue         finish(sums, tile) is called before the sums are rounded, work_on(part, rounded, tile) during
//                      the products of `tile`, with the sums of the previous tile; tile is -1 after the last one

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/hopper/cluster.cuh"
#include "engine/device/hopper/tensor_map.h"
#include "layers/hopper/gated_linear_tiles.h"

namespace colonnade::cuda {
namespace {

using namespace hopper;

struct GatedProblem {
    const __nv_bfloat16* bias;  ///< or null
    int tokens, ffn;
    int steps;                      ///< stages per tile, each a depth of 64
    int row_blocks, column_blocks;  ///< tiles of the clusters
};

/// Sizes of the tile, and offsets in shared memory in bytes from a 1024-byte boundary.
template <typename Pass_>
struct GatedLayout {
    using Pass = Pass_;
    /// `group` is that of gated_tile(). These were the fastest among clusters of 1 and 2, 3 and 4 stages, and groups of
    /// 4 to 16; storing with evict_first was faster, too.
    static constexpr int cluster = 2, stages = 4, group = 8;
    static constexpr int rows = 128, depth = 64, threads = 3 * 128;
    static constexpr int loader_registers = 24, consumer_registers = 240;
    static_assert(128 * (loader_registers + 2 * consumer_registers) <= 65536);

    static constexpr int in_bytes = rows * depth * 2, half_bytes = 128 * depth * 2,
                         stage_bytes = in_bytes + 2 * half_bytes;
    /// Byte offset between consecutive k-steps of 16 in the weight's part.
    static constexpr int weight_advance = Pass::weight_mn_major ? 16 * 128 : 16 * 2;
    static_assert(depth / 16 * weight_advance <= half_bytes);
    // A box of the epilogue is a warp's 16 rows of 64 columns. Each warp has room for two.
    static constexpr int box_rows = 16, box_columns = 64, box_bytes = box_rows * box_columns * 2;
    static constexpr int boxes = stages * stage_bytes, barriers = boxes + 8 * 2 * box_bytes,
                         bytes = barriers + 8 * (2 * stages + 8) + 1024;  // plus the alignment
    static_assert(bytes <= 232448);
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <int stages>
struct Ring {
    uint32_t stage = 0, phase = 0;
    __device__ void advance() {
        if (++stage == stages) stage = 0, phase ^= 1;
    }
    __device__ uint32_t before(uint32_t n) const { return stage < n ? stage + stages - n : stage - n; }
};

template <typename Layout>
struct GatedCta {
    using L = Layout;
    using Pass = typename L::Pass;
    const GatedProblem& problem;
    const typename Pass::Maps& maps;
    uint32_t address;

    __device__ uint32_t in(uint32_t stage) const { return address + stage * L::stage_bytes; }
    __device__ uint32_t weight(uint32_t stage) const { return in(stage) + L::in_bytes; }
    __device__ uint32_t full(uint32_t stage) const { return address + L::barriers + 8 * stage; }
    __device__ uint32_t empty(uint32_t stage) const { return full(L::stages + stage); }
    /// For multiplying warps 0 .. 7: room for two boxes, and a barrier for TMA loads into it.
    __device__ uint32_t spots(int warp) const { return address + L::boxes + warp * 2 * L::box_bytes; }
    __device__ uint32_t loaded(int warp) const { return full(2 * L::stages + warp); }

    __device__ int first_tile() const { return static_cast<int>(blockIdx.x) / L::cluster; }
    __device__ int clusters() const { return static_cast<int>(gridDim.x) / L::cluster; }
    __device__ int tiles() const { return problem.row_blocks * problem.column_blocks; }
    /// First token and column of this CTA's part of tile t.
    __device__ int2 place(int t) const {
        const GatedTile tile = gated_tile(t, problem.row_blocks, problem.column_blocks, L::group);
        return {(tile.row_block * L::cluster + static_cast<int>(cluster_rank())) * L::rows,
                tile.column_block * Pass::columns};
    }

    __device__ void initialise() const {
        if (threadIdx.x == 0) {
            for (uint32_t i = 0; i < L::stages; ++i) {
                init_barrier(full(i), 1);
                init_barrier(empty(i), 8 * L::cluster);  // every warp that multiplies data loaded by this CTA
            }
            for (int warp = 0; warp < 8; ++warp) init_barrier(loaded(warp), 1);
            publish_barriers();
        }
        sync_cluster();
    }
    /// No CTA may end while another CTA of its cluster can still access its shared memory.
    __device__ void finish() const {
        __syncwarp();
        sync_cluster();
    }

    __device__ void load() const {
        prefetch_map(&maps.in), prefetch_map(&maps.weight);
        Ring<L::stages> ring;
        for (int t = first_tile(); t < tiles(); t += clusters()) {
            const auto [row, column] = place(t);
            for (int step = 0; step < problem.steps; ++step, ring.advance()) {
                const uint32_t barrier = full(ring.stage), to = weight(ring.stage);
                wait(empty(ring.stage), ring.phase ^ 1);
                arrive_expecting(barrier, L::stage_bytes);
                load_box(in(ring.stage), &maps.in, barrier, L::depth * step, row);
                static_assert(L::cluster == 2);
                Pass::load_weight(
                    problem, static_cast<int>(cluster_rank()), step, column,
                    [&](uint32_t at, int x, int y) { load_box_to_all(to + at, &maps.weight, barrier, x, y, 0b11); });
            }
        }
    }

    __device__ __forceinline__ void consume() const {
        const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 128), 0) - 1,
                  warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32 % 4), 0);
        const auto release = [&](uint32_t stage) {
            __syncwarp();
            if (lane_anew() < L::cluster) arrive_at(empty(stage), static_cast<uint32_t>(lane_anew()));
        };
        // sums[4 j + 2 r + e]: row lane / 4 + 8 r of the warp's 16, column 8 j + 2 (lane % 4) + e.
        // rounded[i]: sums 2 i and 2 i + 1 of the previous tile.
        float sums[128];
        uint32_t rounded[64];
#pragma unroll
        for (float& x : sums) x = 0;
#pragma unroll
        for (uint32_t& x : rounded) x = 0;
        Ring<L::stages> ring;
        const auto wait_full = [&] { wait(full(ring.stage), ring.phase); };
        const auto multiply = [&](bool onto) {
            constexpr bool mn = Pass::weight_mn_major;
            const uint64_t a = k_major(in(ring.stage) + warpgroup * (L::in_bytes / 2)),
                           b = mn ? mn_major(weight(ring.stage), L::depth * 128) : k_major(weight(ring.stage));
            begin_products();
#pragma unroll
            for (int k = 0; k < L::depth / 16; ++k)
                multiply_shared<mn>(sums, advance(a, 32 * k), advance(b, L::weight_advance * k), onto || k > 0);
            commit_products();
        };

        typename Pass::template Epilogue<GatedCta> epilogue(*this, 4 * warpgroup + warp);
        constexpr int parts = Pass::parts;
        for (int t = first_tile(); t < tiles(); t += clusters()) {
            wait_full();
#pragma unroll
            for (int part = 0; part < parts; ++part) {
                multiply(part > 0);
                ring.advance();
                // The branches of this wait keep the code below after the products; otherwise ptxas mixes them.
                wait_full();
                epilogue.work_on(part, rounded, t);
                if (part == 0) continue;
                wait_products<1>();
                release(ring.before(2));
            }
            for (int step = parts;;) {
                multiply(true);
                wait_products<1>();
                release(ring.before(1));
                ring.advance();
                if (++step == problem.steps) break;
                wait_full();
            }
            wait_products<0>();
            hold(sums);
            release(ring.before(1));
            epilogue.finish(sums, t);
#pragma unroll
            for (int i = 0; i < 64; ++i) rounded[i] = pack_bf16(sums[2 * i], sums[2 * i + 1]);
            hold(rounded);
        }
#pragma unroll
        for (int part = 0; part < parts; ++part) epilogue.work_on(part, rounded, -1);
        if (lane_anew() == 0) wait_stores();
    }
};

#endif

template <typename L>
__global__ void __launch_bounds__(L::threads, 1)
    gated_product(const __grid_constant__ GatedProblem problem, const __grid_constant__ typename L::Pass::Maps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ char shared[];
    const GatedCta<L> cta{problem, maps, (shared_address(shared) + 1023) / 1024 * 1024};
    cta.initialise();
    if (threadIdx.x < 128) {
        give_registers<L::loader_registers>();
        if (threadIdx.x == 0) cta.load();
        cta.finish();
    } else {
        take_registers<L::consumer_registers>();
        cta.consume();
        cta.finish();
    }
#endif
}

/// The columns of gate (half 0) or of up (half 1).
Tensor half_of(const Tensor& gate_up, int64_t half) {
    const int64_t ffn = gate_up.size(1) / 2;
    return gate_up.slice(1, half * ffn, (half + 1) * ffn);
}

/// `depth`: columns of `in`, over which the product sums.
template <typename L>
void launch_product(const Context& ctx, const char* name, int64_t tokens, int64_t ffn, int64_t depth,
                    const Tensor& bias, const typename L::Pass::Maps& maps) {
    const auto blocks = [](int64_t n, int64_t block) { return static_cast<int>((n + block - 1) / block); };
    const GatedProblem problem{.bias = bias.empty() ? nullptr : as_device<bf16>(bias),
                               .tokens = static_cast<int>(tokens),
                               .ffn = static_cast<int>(ffn),
                               // Steps beyond the depth multiply zeros.
                               .steps = std::max(blocks(depth, L::depth), L::Pass::parts + 1),
                               .row_blocks = blocks(tokens, L::cluster * L::rows),
                               .column_blocks = blocks(ffn, L::Pass::columns)};
    check_cuda(cudaFuncSetAttribute(gated_product<L>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes), name);
    const int clusters =
        std::min(problem.row_blocks * problem.column_blocks, std::max(1, ctx.gpu->multiprocessors() / L::cluster));
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {L::cluster, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(clusters * L::cluster));
    config.blockDim = dim3(L::threads);
    config.dynamicSmemBytes = L::bytes;
    config.stream = stream_of(ctx);
    config.attrs = &cluster;
    config.numAttrs = 1;
    check_cuda(cudaLaunchKernelEx(&config, gated_product<L>, problem, maps), name);
}

/// True if there is a tile, and the sizes fit the kernels' int arithmetic.
bool fits_tiles(int64_t tokens, int64_t ffn) {
    return tokens > 0 && ffn < int64_t{1} << 29 && tokens < int64_t{1} << 29 &&
           (tokens + 127) / 128 * ((ffn + 127) / 128) < int64_t{1} << 30;
}

}  // namespace
}  // namespace colonnade::cuda
