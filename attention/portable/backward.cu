// FlashMask backward by mma.sync. Three launches: row statistics; the main kernel for dK, dV and sums of dQ; the
// rounding of dQ. With Context::deterministic the main kernel leaves out dQ, which another kernel computes by query
// blocks: 7 products per tile instead of 5.
//
// Main kernel: a CTA has 128 keys of one kv head (64 or 32 if dK and dV or shared memory would not fit) and walks the
// active query blocks of all query heads that share the head, so that dK and dV stay in registers to the end. Keys are
// the rows of the products S^T = K Q^T and dP^T = V dO^T, so that P^T and dS^T are already laid out as A operands. A
// warp has a group of 32 keys (or 16) and one of `parts` parts of the queries in S and dP, and of the columns of dK and
// dV. P and dS of the other parts reach it through shared memory, where dS has to go anyway for dQ = dS K.
//
// Shared memory moves 128 bytes per clock. Clocks per step of 128 keys x 64 queries (tensor cores: 5120 for head dim
// 128, 2560 for 64 at sm_80's 2048 FLOP per clock, at least half of that on sm_90):
//     head dim      S     dP    dV    dK    dQ    P, dS written    sum
//     128           1024  1024  640   640   1024  256              4608   8 warps: 32 keys x 32 queries, x 64 columns
//     64            512   512   256   256   512   128              2176   4 warps: 32 keys x 64 queries, x 64 columns
// With 16 keys per warp and no parts each B fragment serves one product only: 5760 clocks for head dim 128, 3456 for
// 64, and 5248 for 128 with the fragments of K held in registers. Those of both K and V do not fit.

#include "attention/cuda_kernels.h"
#include "attention/portable/backward.cuh"

namespace colonnade {
namespace portable {
namespace {

template <int head_dim, int groups_, int key_tiles_, int parts_, int queries_, int stages_, int ctas_>
struct Config {
    static constexpr int dim = head_dim;
    static constexpr int groups = groups_, key_tiles = key_tiles_;  ///< groups of key_tiles * 16 keys
    static constexpr int parts = parts_;
    static constexpr int queries = queries_;  ///< of one step
    static constexpr int stages = stages_;    ///< buffers for Q and dO
    static constexpr int ctas = ctas_;        ///< per multiprocessor; limits the registers
    static constexpr int group_keys = 16 * key_tiles, keys = groups * group_keys, warps = groups * parts;
    static constexpr int threads = 32 * warps;
    static constexpr int blocks = keys == 128 ? 2 : 1;  ///< blocks of 64 keys
    /// A warp computes S and dP for `chunk` queries at a time, in `chunks` chunks per step.
    static constexpr int chunk = queries / parts < 32 ? queries / parts : 32, chunks = queries / parts / chunk;
    static constexpr int column_pairs = dim / 16 / parts;  ///< 16-column pairs of a warp's dK and dV
    /// dQ: number of warps across the columns and down the rows.
    static constexpr int dq_across = dim >= 128 ? 4 : 2, dq_down = warps / dq_across;
    static constexpr int dq_tiles = queries / 16 / dq_down, dq_pairs = dim / 16 / dq_across;

    static constexpr int key_bytes = rows_bytes<dim>(keys), query_bytes = rows_bytes<dim>(queries);
    static constexpr int score_bytes = rows_bytes<queries>(keys), statistics_bytes = 2 * queries * 4;
    static constexpr int k = 0, v = key_bytes, q = 2 * key_bytes, stage_bytes = 2 * query_bytes;
    static constexpr int ds = q + stages * stage_bytes, p = ds + score_bytes;
    static constexpr int statistics = parts > 1 ? p + score_bytes : p;
    static constexpr int bytes = statistics + stages * statistics_bytes;

    static_assert(parts == 1 || chunks == 1);
    static_assert(dq_down * dq_across == warps && dq_tiles * dq_down * 16 == queries && stages <= 2);
};

/// Shared by all phases of an item.
struct Cta {
    uint32_t memory;
    unsigned thread;
    int batch, key;
};

/// A thread's position in the CTA; computed again for every phase.
template <typename C>
struct Place {
    unsigned lane, warp;
    int group, part;
    int first_key;          ///< the group's first among the CTA's keys
    uint32_t down, across;  ///< lane_down() and lane_across() at the start of shared memory

    __device__ explicit Place(const Cta& cta) {
        const unsigned thread = anew(cta.thread);
        lane = thread % 32, warp = thread / 32;
        group = static_cast<int>(warp / C::parts), part = static_cast<int>(warp % C::parts);
        first_key = group * C::group_keys;
        down = cta.memory + lane_down<C::dim>(lane), across = cta.memory + lane_across<C::dim>(lane);
    }
};

template <typename C>
using KeyGradients = float[C::key_tiles][2 * C::column_pairs][4];
template <typename C>
using Scores = float[C::key_tiles][C::chunk / 8][4];

template <typename C>
__device__ __forceinline__ void load_queries(const BackwardProblem& p, const Cta& cta, const Step& step, int stage) {
    const unsigned thread = anew(cta.thread);
    const int batch = anew(cta.batch), valid = p.rows - step.first;
    const uint32_t q = cta.memory + C::q + stage * C::stage_bytes;
    copy_tile<C::queries, C::dim, C::threads>(q, p.q.row(batch, step.first, step.head), p.q.token, valid, thread);
    copy_tile<C::queries, C::dim, C::threads>(q + C::query_bytes, p.dout.row(batch, step.first, step.head),
                                              p.dout.token, valid, thread);
    constexpr unsigned chunks = C::queries / 4;
    static_assert(2 * chunks <= C::threads);
    if (thread < 2 * chunks) {
        const float* from = thread < chunks ? p.lse2 : p.delta;
        copy_async(cta.memory + C::statistics + stage * C::statistics_bytes + thread * 16,
                   from + p.statistics(batch, step.head, step.first) + thread % chunks * 4);
    }
}

/// P = 2^x with x = S scale log2(e) - lse log2(e) for the chunk's queries, -inf if the key is hidden. `key` and `query`
/// are those of the thread's first element, `lse` is the shared address of that query's lse.
template <typename C>
__device__ __forceinline__ void probabilities(Scores<C>& s, const BackwardProblem& p, bool partial, int batch, int head,
                                              int key, int query, uint32_t lse) {
#pragma unroll
    for (int j = 0; j < C::chunk / 8; ++j) {
        const float2 x = load_shared_pair(lse + 32 * j);
#pragma unroll
        for (int i = 0; i < C::key_tiles; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) s[i][j][e] = s[i][j][e] * p.scale_log2 - (e % 2 ? x.y : x.x);
    }
    if (partial) {
        const int sheet = p.sheet(batch, anew(head));
#pragma unroll
        for (int r = 0; r < 2 * C::key_tiles; ++r) {
            const HiddenRows hidden(p, sheet, key + 8 * r);
#pragma unroll
            for (int j = 0; j < C::chunk / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& x = s[r / 2][j][r % 2 * 2 + e];
                    if (hidden.contain(query + 8 * j + e)) x = -INFINITY;
                }
        }
        if (p.positions) hide_past_window<false>(s, p.positions_of(batch), p.window, key, query);
    }
#pragma unroll
    for (int i = 0; i < C::key_tiles; ++i)
#pragma unroll
        for (int j = 0; j < C::chunk / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) s[i][j][e] = exp2_fast(s[i][j][e]);
}

/// Rounds the chunk's P^T or dS^T, adds its product with dO or Q to dV or dK, and stores it in shared memory for
/// others. The tiles of dO or Q and of P or dS are `rows_tile` and `scores_tile` bytes after the addresses.
template <typename C, bool store>
__device__ __forceinline__ void add_own(KeyGradients<C>& sum, const Scores<C>& x, uint32_t rows, int rows_tile,
                                        uint32_t scores, int scores_tile) {
#pragma unroll
    for (int s = 0; s < C::chunk / 16; ++s) {
        uint32_t a[C::key_tiles][4];
        to_operand(a, x, s);
        if constexpr (store) {
#pragma unroll
            for (int i = 0; i < C::key_tiles; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    store_shared(
                        (scores ^ (s << 5 | e / 2 << 4)) + (scores_tile + rows_bytes<C::queries>(16 * i + 8 * (e % 2))),
                        a[i][e]);
        }
        multiply_columns<C::dim, C::parts>(sum, a, rows, rows_tile + rows_bytes<C::dim>(16 * s));
    }
}

/// The warp's own share of a step: its P and dS, and their terms of dV and dK.
template <typename C, bool with_dq>
__device__ __forceinline__ void own_part(KeyGradients<C>& dv, KeyGradients<C>& dk, const BackwardProblem& p,
                                         const Cta& cta, const Step& step, bool partial, int stage) {
#pragma unroll 1
    for (int c = 0; c < C::chunks; ++c) {
        const Place<C> at(cta);
        const int chunk = c + at.part, first = chunk * C::chunk, query = first + static_cast<int>(at.lane % 4) * 2;
        const uint32_t keys = at.down + rows_bytes<C::dim>(at.first_key);
        const uint32_t rows = stage * C::stage_bytes + rows_bytes<C::dim>(first);
        const uint32_t lse = cta.memory + stage * C::statistics_bytes + C::statistics + query * 4;
        // Address of the thread's accumulators in the [key][query] tiles of P and dS.
        const uint32_t scores = cta.memory + rows_bytes<C::queries>(at.first_key) +
                                (2 * swizzled<C::queries>(at.lane / 4, 0) ^ chunk * (C::chunk / 16) << 5) +
                                at.lane % 4 * 4;
        Scores<C> s, dp;
        clear(s);
        multiply_rows<C::dim>(s, keys, C::k, rows + at.across, C::q);
        const int lane_row = static_cast<int>(at.lane / 4);
        probabilities<C>(s, p, partial, cta.batch, step.head, cta.key + at.first_key + lane_row, step.first + query,
                         lse);
        const uint32_t columns = rows + (at.down ^ at.part << 5);
        add_own<C, (C::parts > 1)>(dv, s, columns, C::q + C::query_bytes, scores, C::p);
        // Without dQ's barriers ptxas mixes the products until it runs out of registers.
        if constexpr (!with_dq) __syncwarp();
        clear(dp);
        multiply_rows<C::dim>(dp, keys, C::v, rows + at.across, C::q + C::query_bytes);
        if constexpr (!with_dq) __syncwarp();
#pragma unroll
        for (int j = 0; j < C::chunk / 8; ++j) {
            const float2 delta = load_shared_pair(lse + (C::queries * 4 + 32 * j));
#pragma unroll
            for (int i = 0; i < C::key_tiles; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e) dp[i][j][e] = s[i][j][e] * (dp[i][j][e] - (e % 2 ? delta.y : delta.x));
        }
        add_own<C, (C::parts > 1 || with_dq)>(dk, dp, columns, C::q, scores, C::ds);
    }
}

/// The terms of dV and dK from P and dS of the other parts.
template <typename C>
__device__ __forceinline__ void other_parts(KeyGradients<C>& dv, KeyGradients<C>& dk, const Cta& cta, int stage) {
    const Place<C> at(cta);
    const uint32_t scores = cta.memory + rows_bytes<C::queries>(at.first_key) + lane_down<C::queries>(at.lane);
    const uint32_t q = stage * C::stage_bytes + (at.down ^ at.part << 5);
#pragma unroll
    for (int other = 1; other < C::parts; ++other)
#pragma unroll
        for (int s = 0; s < C::chunk / 16; ++s) {
            const int pair = (at.part ^ other) * (C::chunk / 16) + s;
            const uint32_t from = scores ^ pair << 5, rows = q + rows_bytes<C::dim>(16) * pair;
            uint32_t a[C::key_tiles][4];
#pragma unroll
            for (int i = 0; i < C::key_tiles; ++i) load_matrices(a[i], from + (C::p + rows_bytes<C::queries>(16 * i)));
            multiply_columns<C::dim, C::parts>(dv, a, rows, C::q + C::query_bytes);
#pragma unroll
            for (int i = 0; i < C::key_tiles; ++i) load_matrices(a[i], from + (C::ds + rows_bytes<C::queries>(16 * i)));
            multiply_columns<C::dim, C::parts>(dk, a, rows, C::q);
        }
}

__device__ __forceinline__ void add_to_global(float* to, const float (&x)[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "f"(x[0]), "f"(x[1]),
                 "f"(x[2]), "f"(x[3])
                 : "memory");
#else
#pragma unroll
    for (int e = 0; e < 4; ++e) atomicAdd(to + e, x[e]);
#endif
}

/// dQ / scale += dS K over the active blocks of keys, into dq_sum.
template <typename C>
__device__ __forceinline__ void add_dq(const BackwardProblem& p, const Cta& cta, const Step& step, unsigned tiles) {
    const Place<C> at(cta);
    const int down = static_cast<int>(at.warp / C::dq_across) * C::dq_tiles, across = at.warp % C::dq_across;
    const uint32_t scores = cta.memory + (lane_across<C::queries>(at.lane) ^ down << 5);
    const uint32_t keys = at.down ^ across << 5;
    float sum[C::dq_tiles][2 * C::dq_pairs][4];
    clear(sum);
#pragma unroll
    for (int block = 0; block < C::blocks; ++block) {
        if (!(tiles >> block & 1)) continue;
#pragma unroll 2
        for (int s = 0; s < C::keys / C::blocks / 16; ++s) {
            const int row = block * 64 + 16 * s;
            uint32_t a[C::dq_tiles][4];
#pragma unroll
            for (int i = 0; i < C::dq_tiles; ++i)
                load_matrices_transposed(a[i], pair_at<C::queries>(scores, i) + (C::ds + rows_bytes<C::queries>(row)));
            multiply_columns<C::dim, C::dq_across>(sum, a, keys, C::k + rows_bytes<C::dim>(row));
        }
    }
    float* to = p.dq_sum + p.statistics(anew(cta.batch), step.head, step.first + 16 * down) * C::dim + across * 256 +
                at.lane * 4;
#pragma unroll
    for (int i = 0; i < C::dq_tiles; ++i)
#pragma unroll
        for (int j = 0; j < 2 * C::dq_pairs; ++j)
            add_to_global(to + 16 * C::dim * i + 256 * C::dq_across * (j / 2) + 128 * (j % 2), sum[i][j]);
}

/// The CTA's item: keys in the plan's order, kv heads innermost, because those of one sheet do the same work.
struct Item {
    int batch, kv_head, key;
    bool any;

    /// Largest number of kv heads whose first query head belongs to one mask head.
    __host__ __device__ static int kv_heads_per_sheet(const BackwardProblem& p) {
        return (p.heads_per_mask + p.group - 1) / p.group;
    }
    __device__ Item(const BackwardProblem& p, int keys) {
        const int per_sheet = kv_heads_per_sheet(p), splits = 128 / keys;
        int index = static_cast<int>(blockIdx.x);
        const int nth = index % per_sheet;
        index /= per_sheet;
        const int entry = p.by_column.order[index / splits], sheet = entry / p.by_column.block_pairs;
        const int mask_head = sheet % p.mask_heads;
        batch = sheet / p.mask_heads;
        kv_head = (mask_head * p.heads_per_mask + p.group - 1) / p.group + nth;
        key = entry % p.by_column.block_pairs * 128 + index % splits * keys;
        any = kv_head < p.kv_heads && kv_head * p.group < (mask_head + 1) * p.heads_per_mask && key < p.columns;
    }
};

template <typename C>
__device__ __forceinline__ void load_keys(const View& from, int columns, const Cta& cta, const Item& item, int tile) {
    copy_tile<C::keys, C::dim, C::threads>(cta.memory + tile, from.row(item.batch, item.key, item.kv_head), from.token,
                                           columns - item.key, cta.thread);
}
template <typename C>
__device__ __forceinline__ void write_keys(const View& to, int columns, const Cta& cta, const Item& item, int tile) {
    write_tile<C::keys, C::dim, C::threads>(to.row(item.batch, item.key, item.kv_head), to.token, columns - item.key,
                                            cta.memory + tile, cta.thread);
}

template <typename C, bool with_dq>
__global__ void __launch_bounds__(C::threads, C::ctas) by_keys(const __grid_constant__ BackwardProblem p) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const Item item(p, C::keys);
    if (!item.any) return;
    const Cta cta{shared_address(memory), threadIdx.x, item.batch, item.key};
    Walk<C::blocks, C::queries> walk(p, p.by_column, item.batch, item.key, item.kv_head * p.group, p.group);
    if (walk.step()) {
        load_keys<C>(p.k, p.columns, cta, item, C::k);
        load_keys<C>(p.v, p.columns, cta, item, C::v);
        load_queries<C>(p, cta, walk.step(), 0);
    }
    commit_copies();

    KeyGradients<C> dv, dk;
    clear(dv);
    clear(dk);
    int stage = 0;
    while (walk.step()) {
        const Step step = walk.step();
        const unsigned words = walk.tile_words();
        wait_copies<0>();
        __syncthreads();  // the step's tiles have arrived; the other stage, P and dS have been read
        const unsigned tiles = walk.tiles(words), own = tiles >> Place<C>(cta).first_key / 64;
        walk.next();
        if constexpr (C::stages == 2) {
            if (walk.step()) load_queries<C>(p, cta, walk.step(), stage ^ 1);
            commit_copies();
        }
        if (own & 1) own_part<C, with_dq>(dv, dk, p, cta, step, own & 4, stage);
        if constexpr (C::parts > 1 || with_dq) __syncthreads();  // P and dS are written
        if constexpr (C::parts > 1) {
            if (own & 1) other_parts<C>(dv, dk, cta, stage);
        }
        if constexpr (C::stages == 1) {
            __syncthreads();  // Q, dO and their statistics are read
            if (walk.step()) load_queries<C>(p, cta, walk.step(), 0);
            commit_copies();
        }
        if constexpr (with_dq) add_dq<C>(p, cta, step, tiles);
        if constexpr (C::stages == 2) stage ^= 1;
    }

    __syncthreads();  // K and V have been read: dK and dV take their place
    const Place<C> at(cta);
    const uint32_t own = cta.memory + rows_bytes<C::dim>(at.first_key);
    stage_tile<C::dim, C::parts>(own + C::k, dk, at.part, p.scale, at.lane);
    stage_tile<C::dim, C::parts>(own + C::v, dv, at.part, 1.0f, at.lane);
    __syncthreads();
    const Item done(p, C::keys);  // again, because the loop has no registers to keep it in
    write_keys<C>(p.dk, p.columns, cta, done, C::k);
    write_keys<C>(p.dv, p.columns, cta, done, C::v);
}

template <typename C, bool with_dq>
void launch_by_keys(cudaStream_t stream, const BackwardProblem& p) {
    once_per_device([] { return allow_shared_memory(by_keys<C, with_dq>, C::bytes); });
    const int64_t items = int64_t{p.batch} * p.mask_heads * p.by_column.block_pairs * (128 / C::keys);
    const auto grid = static_cast<unsigned>(items * Item::kv_heads_per_sheet(p));
    if (grid == 0) return;  // no key
    by_keys<C, with_dq><<<grid, C::threads, C::bytes, stream>>>(p);
    check_launch("flashmask_backward");
}

/// Launches the first configuration that fits a multiprocessor; every CTA takes 1 KB of shared memory more.
template <bool with_dq, typename C, typename... Smaller>
void launch_fitting(cudaStream_t stream, const BackwardProblem& p, int shared_memory) {
    if constexpr (sizeof...(Smaller) > 0) {
        if (C::ctas * (C::bytes + 1024) > shared_memory + 1024)
            return launch_fitting<with_dq, Smaller...>(stream, p, shared_memory);
    }
    launch_by_keys<C, with_dq>(stream, p);
}

template <typename... Configs>
void launch_all(cudaStream_t stream, const BackwardProblem& p, int shared_memory, bool deterministic) {
    launch_row_statistics(stream, p, !deterministic);
    if (deterministic) {
        launch_fitting<false, Configs...>(stream, p, shared_memory);
        launch_dq_by_rows(stream, p, shared_memory);
    } else {
        launch_fitting<true, Configs...>(stream, p, shared_memory);
        launch_dq_from_sums(stream, p);
    }
}

View view_of(const Tensor& t) {
    return {as_device<bf16>(t), t.stride[0], t.stride[1], t.stride[2]};
}

BackwardProblem problem_of(const FlashMaskBackward& args) {
    const GpuTilePlan& plan = args.plan.gpu;
    const auto lists = [&](const Tensor& active, const Tensor& partial, const Tensor& order, int64_t inner) {
        return TileLists{.active = as_device<int32_t>(active),
                         .partial = as_device<int32_t>(partial),
                         .order = as_device<int32_t>(order),
                         .blocks = static_cast<int>(active.size(1)),
                         .words = static_cast<int>(active.size(2)),
                         .block_pairs = static_cast<int>((active.size(1) + 1) / 2),
                         .inner = static_cast<int>(inner)};
    };
    const int64_t batch = args.q.size(0), rows = args.q.size(1), heads = args.q.size(2);
    auto* scratch = reinterpret_cast<float*>(as_device<uint8_t>(args.scratch));
    const int64_t statistics = batch * heads * cuda::padded_rows(rows);
    constexpr double log2_e = 1.44269504088896340736;
    return {.q = view_of(args.q),
            .k = view_of(args.k),
            .v = view_of(args.v),
            .out = view_of(args.out),
            .dout = view_of(args.dout),
            .dq = view_of(args.dq),
            .dk = view_of(args.dk),
            .dv = view_of(args.dv),
            .lse = as_device<float>(args.lse),
            .lse2 = scratch,
            .delta = scratch + statistics,
            .dq_sum = scratch + 2 * statistics,
            .bounds = reinterpret_cast<const int4*>(as_device<int32_t>(plan.bounds)),
            .by_row = lists(plan.row_active, plan.row_partial, plan.row_order, args.k.size(1)),
            .by_column = lists(plan.column_active, plan.column_partial, plan.column_order, rows),
            .padded_rows = cuda::padded_rows(rows),
            .padded_columns = plan.bounds.size(1),
            .batch = static_cast<int>(batch),
            .rows = static_cast<int>(rows),
            .columns = static_cast<int>(args.k.size(1)),
            .heads = static_cast<int>(heads),
            .kv_heads = static_cast<int>(args.k.size(2)),
            .mask_heads = static_cast<int>(args.mask.heads),
            .head_dim = static_cast<int>(args.q.size(3)),
            .group = static_cast<int>(heads / args.k.size(2)),
            .heads_per_mask = static_cast<int>(heads / args.mask.heads),
            .causal = args.mask.causal,
            .scale = static_cast<float>(args.scale),
            .scale_log2 = static_cast<float>(args.scale * log2_e),
            .positions = args.mask.position_window > 0 ? as_device<int32_t>(plan.positions) : nullptr,
            .window = args.mask.position_window};
}

}  // namespace
}  // namespace portable

namespace cuda {

void portable_backward(const Context& ctx, const FlashMaskBackward& args) {
    using portable::Config;
    const auto problem = portable::problem_of(args);
    const cudaStream_t stream = stream_of(ctx);
    int device = 0, shared_memory = 0;
    check_cuda(cudaGetDevice(&device), "flashmask_backward");
    check_cuda(cudaDeviceGetAttribute(&shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
               "flashmask_backward");
    // The smaller configurations fit the 99 KB of sm_86, sm_89 and sm_120.
    switch (problem.head_dim) {
        case 64:
            return portable::launch_all<Config<64, 4, 2, 1, 64, 2, 2>, Config<64, 8, 1, 1, 64, 2, 1>>(
                stream, problem, shared_memory, ctx.deterministic);
        case 96:
            return portable::launch_all<Config<96, 4, 2, 2, 64, 2, 1>, Config<96, 4, 1, 2, 64, 2, 1>>(
                stream, problem, shared_memory, ctx.deterministic);
        case 128:
            return portable::launch_all<Config<128, 4, 2, 2, 64, 2, 1>, Config<128, 4, 1, 2, 64, 1, 1>>(
                stream, problem, shared_memory, ctx.deterministic);
        case 256:
            return portable::launch_all<Config<256, 2, 2, 4, 64, 2, 1>, Config<256, 2, 2, 4, 64, 1, 1>,
                                        Config<256, 2, 1, 2, 32, 1, 1>>(stream, problem, shared_memory,
                                                                        ctx.deterministic);
        default:
            fail(Exit::internal, "flashmask: no GPU kernel for head_dim {}", problem.head_dim);
    }
}

}  // namespace cuda
}  // namespace colonnade
