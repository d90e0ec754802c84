// SwiGLU within the product that makes gate and up, on Hopper (sm_90a).
//
// A tile is 128 tokens x (128 columns of gate and the same 128 of up). A stage of shared memory holds the tokens' and both
// halves' rows of the weight for 64 columns of hidden. As the halves lie one after the other, one wgmma of 256 columns
// makes both, and gate and up of the same element meet in one thread.
//
// A CTA is persistent, one to a multiprocessor. One warp loads by TMA, two warpgroups multiply, 64 tokens each. Two CTAs
// are a cluster, of 256 tokens and the same columns: each loads one half of the weight's rows for both. So L2 delivers
// 32 KiB a stage and CTA instead of 48.
//
// A tile's end costs the tensor cores no more than rounding the sums: rounded they take half of the registers, and all
// else that becomes of them (silu, staging, stores by TMA) is done in parts beside the products of the next tile.

#include <algorithm>

#include "engine/gpu.cuh"
#include "engine/hopper/cluster.cuh"
#include "engine/hopper/tensor_map.h"
#include "layers/cuda_kernels.h"
#include "layers/gated_linear_tiles.h"
#include "layers/swiglu.cuh"

namespace colonnade::cuda {
namespace {

using namespace hopper;

struct GatedMaps {
    CUtensorMap in, weight, gate, up, out;
};

struct GatedProblem {
    const __nv_bfloat16* bias;  ///< or null
    int tokens, ffn;
    int steps;                      ///< stages that a tile takes, 64 columns of hidden each
    int row_blocks, column_blocks;  ///< tiles of a cluster
};

/// Tile, and shared memory: bytes from a 1024-byte boundary on.
template <int cluster_, int stages_, int group_, uint64_t store_policy_ = evict_first>
struct GatedLayout {
    static constexpr int cluster = cluster_, stages = stages_, group = group_;
    static constexpr uint64_t store_policy = store_policy_;
    static_assert((cluster == 1 || cluster == 2) && stages >= 3 && group > 0 && store_policy != 0);
    static constexpr int rows = 128, columns = 128, depth = 64, threads = 3 * 128;
    static constexpr int loader_registers = 24, consumer_registers = 240;
    static_assert(128 * (loader_registers + 2 * consumer_registers) <= 65536);

    static constexpr int in_bytes = rows * depth * 2, half_bytes = columns * depth * 2,
                         stage_bytes = in_bytes + 2 * half_bytes;
    // A box to store: a warp's 16 rows of 64 columns. Each warp has places for two.
    static constexpr int box_rows = 16, box_columns = 64, box_bytes = box_rows * box_columns * 2;
    static constexpr int boxes = stages * stage_bytes, barriers = boxes + 8 * 2 * box_bytes,
                         bytes = barriers + 8 * 2 * stages + 1024;  // and the way to the boundary
    static_assert(bytes <= 232448);
};

/// What is done of a finished tile beside a step of the next: gate and up of 64 columns are sent, twice 32 columns of
/// `out` are worked out; then the other 64 columns.
constexpr int parts = 6;

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
    const GatedProblem& problem;
    const GatedMaps& maps;
    uint32_t address;

    __device__ uint32_t in(uint32_t stage) const { return address + stage * L::stage_bytes; }
    __device__ uint32_t weight(uint32_t stage) const { return in(stage) + L::in_bytes; }
    __device__ uint32_t full(uint32_t stage) const { return address + L::barriers + 8 * stage; }
    __device__ uint32_t empty(uint32_t stage) const { return full(L::stages + stage); }

    __device__ int first_tile() const { return static_cast<int>(blockIdx.x) / L::cluster; }
    __device__ int clusters() const { return static_cast<int>(gridDim.x) / L::cluster; }
    __device__ int tiles() const { return problem.row_blocks * problem.column_blocks; }
    /// The first token and column of this CTA's part of tile t.
    __device__ int2 place(int t) const {
        const GatedTile tile = gated_tile(t, problem.row_blocks, problem.column_blocks, L::group);
        const int rank = L::cluster == 1 ? 0 : static_cast<int>(cluster_rank());
        return {(tile.row_block * L::cluster + rank) * L::rows, tile.column_block * L::columns};
    }

    __device__ void initialise() const {
        if (threadIdx.x == 0) {
            for (uint32_t i = 0; i < L::stages; ++i) {
                init_barrier(full(i), 1);
                init_barrier(empty(i), 8 * L::cluster);  // every warp that multiplies what this CTA loads
            }
            publish_barriers();
        }
        if constexpr (L::cluster > 1)
            sync_cluster();
        else
            __syncthreads();
    }
    /// No CTA may end while another of its cluster can still reach its shared memory.
    __device__ void finish() const {
        if constexpr (L::cluster > 1) {
            __syncwarp();
            sync_cluster();
        }
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
                if constexpr (L::cluster == 1) {
                    load_box(to, &maps.weight, barrier, L::depth * step, column);
                    load_box(to + L::half_bytes, &maps.weight, barrier, L::depth * step, problem.ffn + column);
                } else {  // rank 0 brings the rows of gate, rank 1 those of up
                    static_assert(L::cluster == 2);
                    const int half = static_cast<int>(cluster_rank());
                    load_box_to_all(to + half * L::half_bytes, &maps.weight, barrier, L::depth * step,
                                    half * problem.ffn + column, 0b11);
                }
            }
        }
    }

    __device__ __forceinline__ void consume() const {
        const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 128), 0) - 1,
                  warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32 % 4), 0), lane = lane_anew();
        const auto release = [&](uint32_t stage) {
            if constexpr (L::cluster == 1) {
                arrive_as_warp(empty(stage), threadIdx.x % 32);
            } else {
                __syncwarp();
                if (lane_anew() < L::cluster) arrive_at(empty(stage), static_cast<uint32_t>(lane_anew()));
            }
        };
        // sums[4 j + 2 r + e] is gate of row lane / 4 + 8 r of the warp's 16, column 8 j + 2 (lane % 4) + e; up of the
        // same element is 64 further on. rounded[i]: sums 2 i and 2 i + 1 of the tile before.
        float sums[128];
        uint32_t rounded[64];
#pragma unroll
        for (float& x : sums) x = 0;
#pragma unroll
        for (uint32_t& x : rounded) x = 0;
        Ring<L::stages> ring;
        const auto wait_full = [&] { wait(full(ring.stage), ring.phase); };
        const auto multiply = [&](bool onto) {
            const uint64_t a = k_major(in(ring.stage) + warpgroup * (L::in_bytes / 2)), b = k_major(weight(ring.stage));
            begin_products();
#pragma unroll
            for (int k = 0; k < L::depth / 16; ++k)
                multiply_shared(sums, advance(a, 32 * k), advance(b, 32 * k), onto || k > 0);
            commit_products();
        };

        // Boxes of the tile before, one after the other, to one of the warp's two spots and from there to memory.
        const uint32_t first_spot = address + L::boxes + (4 * warpgroup + warp) * 2 * L::box_bytes;
        // Of row lane % 16 the chunk that lane / 16 is to write of chunks 0 and 1; of 2 i and 2 i + 1 it is that ^ 32 i.
        const uint32_t row_offset = lane % 16 * 128 + (lane / 16 ^ lane % 8) * 16;
        const auto take_spot = [&] {  // its last box but one has left
            if (lane_anew() == 0) wait_stores_read<1>();
            __syncwarp();
        };
        const auto write = [&](int spot, int i, const uint32_t* r) {
            store_matrices((first_spot + spot * L::box_bytes + row_offset) ^ (32 * i), r[0], r[1], r[2], r[3]);
        };
        int before = -1;  // the tile before; none
        int row = 0, column = 0;
        const auto send = [&](int spot, const CUtensorMap& map, int half) {
            fence_async();
            __syncwarp();
            if (lane_anew() == 0) {
                if (before >= 0 && row < problem.tokens && column + 64 * half < problem.ffn)
                    store_box(&map, first_spot + spot * L::box_bytes, column + 64 * half, row, L::store_policy);
                commit_stores();
            }
        };
        const auto work_on = [&](int part) {
            const int half = part / 3, step = part % 3, gate = 16 * half, up = 32 + gate;
            if (part == 0 && before >= 0) {
                const int2 corner = place(before);
                row = corner.x + 64 * warpgroup + 16 * warp, column = corner.y;
            }
            if (step == 0) {
                take_spot();
#pragma unroll
                for (int i = 0; i < 4; ++i) write(half, i, rounded + gate + 4 * i);
                send(half, maps.gate, half);
                take_spot();
#pragma unroll
                for (int i = 0; i < 4; ++i) write(1 - half, i, rounded + up + 4 * i);
                send(1 - half, maps.up, half);
                return;
            }
            if (step == 1) take_spot();
#pragma unroll
            for (int i = 2 * step - 2; i < 2 * step; ++i) {
                uint32_t out[4];
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const uint32_t g = rounded[gate + 4 * i + k], u = rounded[up + 4 * i + k];
                    out[k] = pack_bf16(swiglu(__uint_as_float(g << 16), __uint_as_float(u << 16)),
                                       swiglu(__uint_as_float(g & 0xffff0000u), __uint_as_float(u & 0xffff0000u)));
                }
                write(half, i, out);
            }
            if (step == 2) send(half, maps.out, half);
        };

        for (int t = first_tile(); t < tiles(); t += clusters()) {
            wait_full();
#pragma unroll
            for (int part = 0; part < parts; ++part) {
                multiply(part > 0);
                ring.advance();
                // The branches of this wait keep what follows on this side of the products; else ptxas mixes them.
                wait_full();
                work_on(part);
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
            if (problem.bias) add_bias(sums, place(t).y + 2 * (lane_anew() % 4));
#pragma unroll
            for (int i = 0; i < 64; ++i) rounded[i] = pack_bf16(sums[2 * i], sums[2 * i + 1]);
            hold(rounded);
            before = t;
        }
#pragma unroll
        for (int part = 0; part < parts; ++part) work_on(part);
        if (lane_anew() == 0) wait_stores();
    }

    /// `column`: the thread's first.
    __device__ void add_bias(float (&sums)[128], int column) const {
#pragma unroll
        for (int j = 0; j < 16; ++j) {
            if (column + 8 * j >= problem.ffn) break;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const __nv_bfloat16* const from = problem.bias + half * problem.ffn + column + 8 * j;
                const float2 bias = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    sums[64 * half + 4 * j + 2 * r] += bias.x;
                    sums[64 * half + 4 * j + 2 * r + 1] += bias.y;
                }
            }
        }
    }
};

#endif

template <typename L>
__global__ void __launch_bounds__(L::threads, 1)
    gated_linear(const __grid_constant__ GatedProblem problem, const __grid_constant__ GatedMaps maps) {
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

/// Columns [begin, end) of gate_up.
Tensor half_of(const Tensor& gate_up, int64_t half) {
    const int64_t ffn = gate_up.size(1) / 2;
    return gate_up.slice(1, half * ffn, (half + 1) * ffn);
}

template <typename L>
void launch(const Context& ctx, const GatedLinearForward& args) {
    const auto blocks = [](int64_t n, int64_t block) { return static_cast<int>((n + block - 1) / block); };
    const int64_t tokens = args.out.size(0), ffn = args.out.size(1), hidden = args.in.size(1);
    const GatedProblem problem{.bias = args.bias.empty() ? nullptr : as_device<bf16>(args.bias),
                               .tokens = static_cast<int>(tokens),
                               .ffn = static_cast<int>(ffn),
                               // Steps past the end of hidden multiply zeros.
                               .steps = std::max(blocks(hidden, L::depth), parts + 1),
                               .row_blocks = blocks(tokens, L::cluster * L::rows),
                               .column_blocks = blocks(ffn, L::columns)};
    const GatedMaps maps{.in = make_matrix_map(args.in, L::rows),
                         .weight = make_matrix_map(args.weight, L::columns),
                         .gate = make_matrix_map(half_of(args.gate_up, 0), L::box_rows),
                         .up = make_matrix_map(half_of(args.gate_up, 1), L::box_rows),
                         .out = make_matrix_map(args.out, L::box_rows)};
    check_cuda(cudaFuncSetAttribute(gated_linear<L>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes),
               "gated_linear");
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
    check_cuda(cudaLaunchKernelEx(&config, gated_linear<L>, problem, maps), "gated_linear");
}

}  // namespace

bool hopper_supports(const Context& ctx, const GatedLinearForward& args) {
    const int64_t tokens = args.out.size(0), ffn = args.out.size(1);
    return ctx.device == Device::cuda && ctx.gpu->compute_capability() == 90 && ffn % 8 == 0 &&
           ffn < int64_t{1} << 29 && tokens < int64_t{1} << 29 &&
           (tokens + 127) / 128 * ((ffn + 127) / 128) < int64_t{1} << 30 && has_matrix_map(args.in) &&
           has_matrix_map(args.weight) && has_matrix_map(args.gate_up) && has_matrix_map(args.out) &&
           reinterpret_cast<uintptr_t>(args.bias.data) % 4 == 0;
}

void hopper_gated_linear(const Context& ctx, const GatedLinearForward& args) {
    launch<GatedLayout<2, 4, 8>>(ctx, args);
}

}  // namespace colonnade::cuda
