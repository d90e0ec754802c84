// dQ of the portable backward: by a pass over the query blocks, which gives the same bits in every run, or from the
// sums of the main kernel (backward.cu).
//
// The pass: a CTA has 128 query rows (or 64) of one head, a warp 16 or 32 of them, and walks the active key blocks.
// Query rows are the rows of the products, so that dS is already laid out as an A operand and only the tiles themselves
// pass through shared memory. Clocks of shared memory per step of 128 rows x 64 keys, at 128 bytes per clock (tensor
// cores: 3072 for head dim 128 and 1536 for 64 at sm_80's 2048 FLOP per clock):
//     head dim      Q, dO   K, V    K for dQ   sum
//     128           1024    2048    1024       4096   8 warps of 16 rows
//     64            512     512     256        1280   4 warps of 32 rows

#include "attention/portable/backward.cuh"

namespace colonnade::portable {
namespace {

template <int head_dim, int warps_, int row_tiles_, int keys_, int stages_, int ctas_>
struct Config {
    static constexpr int dim = head_dim, warps = warps_, threads = 32 * warps;
    static constexpr int row_tiles = row_tiles_, warp_rows = 16 * row_tiles, rows = warps * warp_rows;
    static constexpr int keys = keys_;                  ///< of one step
    static constexpr int stages = stages_;              ///< buffers for K and V
    static constexpr int ctas = ctas_;                  ///< per multiprocessor; limits the registers
    static constexpr int chunk = 32;                    ///< keys whose S and dP are in registers at a time
    static constexpr int blocks = rows == 128 ? 2 : 1;  ///< blocks of 64 rows

    static constexpr int row_bytes = rows_bytes<dim>(rows), key_bytes = rows_bytes<dim>(keys);
    static constexpr int q = 0, dout = row_bytes, k = 2 * row_bytes, stage_bytes = 2 * key_bytes;
    static constexpr int bytes = k + stages * stage_bytes;
};

template <typename C>
using Scores = float[C::row_tiles][C::chunk / 8][4];
template <typename C>
using PerRow = float[C::row_tiles][2];  ///< per row of a thread: lane / 4 and lane / 4 + 8 of every tile of 16

template <typename C>
__device__ __forceinline__ void load_keys(const BackwardProblem& p, int batch, const Step& step, uint32_t stage) {
    const int kv_head = step.head / p.group, valid = p.columns - step.first;
    const unsigned thread = anew(threadIdx.x);
    batch = anew(batch);
    copy_tile<C::keys, C::dim, C::threads>(stage, p.k.row(batch, step.first, kv_head), p.k.token, valid, thread);
    copy_tile<C::keys, C::dim, C::threads>(stage + C::key_bytes, p.v.row(batch, step.first, kv_head), p.v.token, valid,
                                           thread);
}

/// P = 2^x with x = S scale log2(e) - lse log2(e), -inf if the key is hidden. `row` and `key` are those of the thread's
/// first element.
template <typename C>
__device__ __forceinline__ void probabilities(Scores<C>& s, const BackwardProblem& p, const PerRow<C>& lse2,
                                              bool partial, int sheet, int row, int key) {
#pragma unroll
    for (int i = 0; i < C::row_tiles; ++i)
#pragma unroll
        for (int j = 0; j < C::chunk / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) s[i][j][e] = s[i][j][e] * p.scale_log2 - lse2[i][e / 2];
    if (partial) {
#pragma unroll
        for (int j = 0; j < C::chunk / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const HiddenRows hidden(p, sheet, key + 8 * j + e);
#pragma unroll
                for (int i = 0; i < C::row_tiles; ++i)
#pragma unroll
                    for (int half = 0; half < 2; ++half)
                        if (hidden.contain(row + 16 * i + 8 * half)) s[i][j][2 * half + e] = -INFINITY;
            }
        if (p.positions) hide_past_window<true>(s, p.positions_of(sheet / p.mask_heads), p.window, row, key);
    }
#pragma unroll
    for (int i = 0; i < C::row_tiles; ++i)
#pragma unroll
        for (int j = 0; j < C::chunk / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) s[i][j][e] = exp2_fast(s[i][j][e]);
}

/// The CTA's item: rows in the plan's order, the heads of the sheet innermost, because they do the same work and share
/// K, V.
struct Item {
    int batch, sheet, head, row;

    __device__ Item(const BackwardProblem& p, int rows) {
        const int index = static_cast<int>(blockIdx.x) / p.heads_per_mask, splits = 128 / rows;
        const int entry = p.by_row.order[index / splits];
        sheet = entry / p.by_row.block_pairs;
        batch = sheet / p.mask_heads;
        head = sheet % p.mask_heads * p.heads_per_mask + static_cast<int>(blockIdx.x) % p.heads_per_mask;
        row = entry % p.by_row.block_pairs * 128 + index % splits * rows;
    }
};

/// dQ / scale += dS K for the warp's rows and one step. `own` is the address of the warp's rows in the tile of Q, `row`
/// the thread's first row.
template <typename C>
__device__ __forceinline__ void add_step(float (&dq)[C::row_tiles][C::dim / 8][4], const BackwardProblem& p,
                                         const PerRow<C>& lse2, const PerRow<C>& delta, const Step& step, bool partial,
                                         int sheet, int row, uint32_t own, uint32_t stage) {
    const unsigned lane = anew(threadIdx.x) % 32;
    const uint32_t down = lane_down<C::dim>(lane), across = lane_across<C::dim>(lane);
#pragma unroll 1
    for (int chunk = 0; chunk < C::keys; chunk += C::chunk) {
        const uint32_t keys = stage + rows_bytes<C::dim>(chunk);
        Scores<C> s, dp;
        clear(s);
        multiply_rows<C::dim>(s, own + down, C::q, keys + across, 0);
        probabilities<C>(s, p, lse2, partial, sheet, row, step.first + chunk + static_cast<int>(lane % 4) * 2);
        clear(dp);
        multiply_rows<C::dim>(dp, own + down, C::dout, keys + across, C::key_bytes);
#pragma unroll
        for (int i = 0; i < C::row_tiles; ++i)
#pragma unroll
            for (int j = 0; j < C::chunk / 8; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) dp[i][j][e] = s[i][j][e] * (dp[i][j][e] - delta[i][e / 2]);
#pragma unroll
        for (int k = 0; k < C::chunk / 16; ++k) {
            uint32_t a[C::row_tiles][4];
            to_operand(a, dp, k);
            multiply_columns<C::dim, 1>(dq, a, keys + down, rows_bytes<C::dim>(16 * k));
        }
    }
}

template <typename C>
__global__ void __launch_bounds__(C::threads, C::ctas) dq_by_rows(const __grid_constant__ BackwardProblem p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const Item item(p, C::rows);
    const int valid = p.rows - item.row;
    if (valid <= 0) return;
    const unsigned thread = threadIdx.x, lane = thread % 32;
    const int warp_row = static_cast<int>(thread / 32) * C::warp_rows;
    const int row = item.row + warp_row + static_cast<int>(lane / 4);
    const uint32_t base = shared_address(memory), own = base + rows_bytes<C::dim>(warp_row);

    const int one_head = 1;
    Walk<C::blocks, C::keys> walk(p, p.by_row, item.batch, item.row, item.head, one_head);
    PerRow<C> lse2 = {}, delta = {};
    if (walk.step()) {
        copy_tile<C::rows, C::dim, C::threads>(base + C::q, p.q.row(item.batch, item.row, item.head), p.q.token, valid,
                                               thread);
        copy_tile<C::rows, C::dim, C::threads>(base + C::dout, p.dout.row(item.batch, item.row, item.head),
                                               p.dout.token, valid, thread);
        load_keys<C>(p, item.batch, walk.step(), base + C::k);
#pragma unroll
        for (int i = 0; i < 2 * C::row_tiles; ++i) {
            lse2[i / 2][i % 2] = p.lse2[p.statistics(item.batch, item.head, row + 8 * i)];
            delta[i / 2][i % 2] = p.delta[p.statistics(item.batch, item.head, row + 8 * i)];
        }
    }
    commit_copies();

    float dq[C::row_tiles][C::dim / 8][4];
    clear(dq);
    uint32_t stage = base + C::k, next_stage = stage + (C::stages - 1) * C::stage_bytes;
    while (walk.step()) {
        const Step step = walk.step();
        const unsigned words = walk.tile_words();
        wait_copies<0>();
        __syncthreads();  // the step's tiles have arrived, and the other stage has been read
        const unsigned tiles = walk.tiles(words) >> warp_row / 64;
        walk.next();
        if constexpr (C::stages == 2) {
            if (walk.step()) load_keys<C>(p, item.batch, walk.step(), next_stage);
            commit_copies();
        }
        if (tiles & 1) add_step<C>(dq, p, lse2, delta, step, tiles & 4, item.sheet, row, own, stage);
        if constexpr (C::stages == 1) {
            __syncthreads();  // K and V have been read
            if (walk.step()) load_keys<C>(p, item.batch, walk.step(), next_stage);
            commit_copies();
        }
        const uint32_t used = stage;
        stage = next_stage, next_stage = used;
    }

    __syncthreads();  // Q has been read: dQ takes its place
    stage_tile<C::dim, 1>(own + C::q, dq, 0, p.scale, lane);
    __syncthreads();
    const Item done(p, C::rows);  // again, because the loop has no registers to keep it in
    write_tile<C::rows, C::dim, C::threads>(p.dq.row(done.batch, done.row, done.head), p.dq.token, p.rows - done.row,
                                            base + C::q, thread);
}

/// delta = rowsum(O * dO), lse2 and dq_sum = 0 for 128 rows of one head.
template <int dim>
__global__ void __launch_bounds__(256) row_statistics(const __grid_constant__ BackwardProblem p, bool with_dq_sum) {
    constexpr int lanes = dim == 96 ? 4 : dim / 8, chunks = dim / 8 / lanes, at_once = 256 / lanes;
    const int blocks = static_cast<int>(p.padded_rows / 128), lane = threadIdx.x % lanes;
    const int head = static_cast<int>(blockIdx.x) / blocks, first = static_cast<int>(blockIdx.x) % blocks * 128;
    const int b = head / p.heads, h = head % p.heads;
#pragma unroll 4
    for (int i = 0; i < 128 / at_once; ++i) {
        const int row = first + i * at_once + static_cast<int>(threadIdx.x) / lanes;
        float sum = 0;
        if (row < p.rows) {
            const __nv_bfloat16 *out = p.out.row(b, row, h) + lane * 8, *dout = p.dout.row(b, row, h) + lane * 8;
#pragma unroll
            for (int c = 0; c < chunks; ++c) {
                const uint4 x = *reinterpret_cast<const uint4*>(out + c * lanes * 8);
                const uint4 y = *reinterpret_cast<const uint4*>(dout + c * lanes * 8);
                const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
                for (int e = 0; e < 4; ++e) {  // a bf16 is the upper half of an f32
                    sum += __uint_as_float(xs[e] << 16) * __uint_as_float(ys[e] << 16);
                    sum += __uint_as_float(xs[e] & 0xffff0000u) * __uint_as_float(ys[e] & 0xffff0000u);
                }
            }
        }
#pragma unroll
        for (int apart = lanes / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
        if (lane == 0) {
            const float lse = row < p.rows ? p.lse[int64_t{head} * p.rows + row] : -INFINITY;
            const bool sees = lse != -INFINITY;
            const int64_t to = p.statistics(b, h, row);
            p.lse2[to] = sees ? lse * 1.44269504088896f : INFINITY;
            p.delta[to] = sees ? sum : 0.0f;
        }
    }
    if (!with_dq_sum) return;
    auto* zero = reinterpret_cast<float4*>(p.dq_sum + p.statistics(b, h, first) * dim);
#pragma unroll
    for (int i = 0; i < 128 * dim / 4 / 256; ++i) zero[i * 256 + threadIdx.x] = float4{};
}

/// Converts dq_sum, accumulators of 16 x 8 tiles, to rows of bf16 times scale, for 128 rows of one head.
template <int dim>
__global__ void __launch_bounds__(256) dq_from_sums(const __grid_constant__ BackwardProblem p) {
    const int blocks = static_cast<int>(p.padded_rows / 128);
    const int head = static_cast<int>(blockIdx.x) / blocks, first = static_cast<int>(blockIdx.x) % blocks * 128;
    const int b = head / p.heads, h = head % p.heads;
    const float* sums = p.dq_sum + p.statistics(b, h, first) * dim;
    // A thread takes 8 columns of rows g and g + 8 of a tile, which four lanes computed; four threads take 32 columns
    // of a row.
#pragma unroll
    for (int i = 0; i < dim / 32; ++i) {
        const int at = i * 256 + threadIdx.x, g = at / 4 % 8, rest = at / 32;
        const int column = rest % (dim / 32) * 32 + at % 4 * 8, tile_row = rest / (dim / 32) * 16;
        const auto* from = reinterpret_cast<const float4*>(sums + tile_row * dim + column * 16 + g * 16);
        const float4 x[4] = {from[0], from[1], from[2], from[3]};
        uint32_t upper[4], lower[4];
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            upper[t] = pack_bf16(x[t].x * p.scale, x[t].y * p.scale);
            lower[t] = pack_bf16(x[t].z * p.scale, x[t].w * p.scale);
        }
        const int row = first + tile_row + g;
        if (row < p.rows)
            *reinterpret_cast<uint4*>(p.dq.row(b, row, h) + column) = {upper[0], upper[1], upper[2], upper[3]};
        if (row + 8 < p.rows)
            *reinterpret_cast<uint4*>(p.dq.row(b, row + 8, h) + column) = {lower[0], lower[1], lower[2], lower[3]};
    }
}

template <typename C>
void launch(cudaStream_t stream, const BackwardProblem& p) {
    once_per_device([] { return allow_shared_memory(dq_by_rows<C>, C::bytes); });
    const int64_t items = int64_t{p.batch} * p.mask_heads * p.by_row.block_pairs * (128 / C::rows);
    const auto grid = static_cast<unsigned>(items * p.heads_per_mask);
    if (grid == 0) return;
    dq_by_rows<C><<<grid, C::threads, C::bytes, stream>>>(p);
    check_launch("flashmask_backward");
}

template <typename Larger, typename Smaller>
void launch_fitting(cudaStream_t stream, const BackwardProblem& p, int shared_memory) {
    if (Larger::bytes <= shared_memory) return launch<Larger>(stream, p);
    launch<Smaller>(stream, p);
}

/// Number of CTAs of 128 rows of one head.
unsigned blocks_of_rows(const BackwardProblem& p) {
    return static_cast<unsigned>(int64_t{p.batch} * p.heads * (p.padded_rows / 128));
}

template <int dim>
void launch_from_sums(cudaStream_t stream, const BackwardProblem& p) {
    if (blocks_of_rows(p) == 0) return;
    dq_from_sums<dim><<<blocks_of_rows(p), 256, 0, stream>>>(p);
    check_launch("flashmask_backward");
}

template <int dim>
void launch_statistics(cudaStream_t stream, const BackwardProblem& p, bool with_dq_sum) {
    if (blocks_of_rows(p) == 0) return;  // no query
    row_statistics<dim><<<blocks_of_rows(p), 256, 0, stream>>>(p, with_dq_sum);
    check_launch("flashmask_backward");
}

}  // namespace

void launch_row_statistics(cudaStream_t stream, const BackwardProblem& p, bool with_dq_sum) {
    switch (p.head_dim) {
        case 64:
            return launch_statistics<64>(stream, p, with_dq_sum);
        case 96:
            return launch_statistics<96>(stream, p, with_dq_sum);
        case 128:
            return launch_statistics<128>(stream, p, with_dq_sum);
        case 256:
            return launch_statistics<256>(stream, p, with_dq_sum);
        default:
            fail(Exit::internal, "flashmask: no GPU kernel for head_dim {}", p.head_dim);
    }
}

void launch_dq_by_rows(cudaStream_t stream, const BackwardProblem& p, int shared_memory) {
    switch (p.head_dim) {
        case 64:
            return launch<Config<64, 4, 2, 64, 2, 2>>(stream, p);
        case 96:
            return launch<Config<96, 8, 1, 64, 2, 1>>(stream, p);
        case 128:
            return launch_fitting<Config<128, 8, 1, 64, 2, 1>, Config<128, 4, 1, 64, 2, 1>>(stream, p, shared_memory);
        case 256:
            return launch_fitting<Config<256, 4, 1, 64, 1, 1>, Config<256, 4, 1, 32, 1, 1>>(stream, p, shared_memory);
        default:
            fail(Exit::internal, "flashmask: no GPU kernel for head_dim {}", p.head_dim);
    }
}

void launch_dq_from_sums(cudaStream_t stream, const BackwardProblem& p) {
    switch (p.head_dim) {
        case 64:
            return launch_from_sums<64>(stream, p);
        case 96:
            return launch_from_sums<96>(stream, p);
        case 128:
            return launch_from_sums<128>(stream, p);
        case 256:
            return launch_from_sums<256>(stream, p);
        default:
            fail(Exit::internal, "flashmask: no GPU kernel for head_dim {}", p.head_dim);
    }
}

}  // namespace colonnade::portable
