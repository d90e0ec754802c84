// FlashMask forward on Hopper: the loop of FlashAttention-3 (arXiv 2407.08608) over the active tiles of the plan.
//
// A CTA is persistent, one to a multiprocessor. Its first warpgroup feeds it, a warp to a task: `schedule` takes work
// items from a counter, `load` brings queries, keys and values by TMA, `mask` turns the bounds of partial tiles into
// bits, `store` sends outputs off. The others, two of them, or three for head dim 64, whose scores cost as much for half
// the products, compute 64 rows each: while the tensor cores multiply probabilities and values of one tile,
// the scores of the next become probabilities, and the warpgroups take turns in issuing products, so that one's
// exponentials run beside the others' products. A warpgroup leaves out tiles that hide all from its rows, and only
// hands on its turn and what the tile takes.
//
// Queries have two buffers, or one for head dim 256; an item's outputs leave through its own. Tiles go from the last
// columns to the first, in the same order however the mask is expressed.

#include <atomic>
#include <cmath>

#include "attention/hopper/hopper.h"
#include "attention/hopper/row_feed.cuh"
#include "attention/hopper/row_problem.h"
#include "attention/hopper/row_scores.cuh"
#include "engine/device/gpu.cuh"
#include "engine/device/hopper/tensor_map.h"

namespace colonnade::hopper {

struct ForwardMaps {
    CUtensorMap q, k, v, out;
};

/// Who computes what, and shared memory: bytes from a 1024-byte boundary on.
template <int head_dim>
struct ForwardLayout {
    using Maps = ForwardMaps;
    static constexpr int warpgroups = head_dim == 64 ? 3 : 2, tile_rows = 64 * warpgroups,
                         tile_columns = head_dim == 256 ? 64 : 128, threads = 128 * (1 + warpgroups);
    static constexpr int feeder_registers = head_dim == 64 ? 32 : 40, consumer_registers = head_dim == 64 ? 160 : 232;
    static_assert(128 * (feeder_registers + warpgroups * consumer_registers) <= 65536);

    static constexpr bool gradient = false;
    static constexpr int stages = head_dim == 64 ? 4 : 2, v_stages = stages, slabs = head_dim / 64,
                         q_places = head_dim == 256 ? 1 : 2, q_slab_bytes = tile_rows * 128,
                         slab_bytes = tile_columns * 128, q_bytes = slabs * q_slab_bytes,
                         tile_bytes = slabs * slab_bytes, words_of_warpgroup = mask_words(tile_columns),
                         words_bytes = warpgroups * words_of_warpgroup * 4;
    static constexpr int q = 0, k = q + q_places * q_bytes, v = k + stages * tile_bytes,
                         words = v + stages * tile_bytes, masks = words + stages * words_bytes,
                         items = masks + stages * 4, barriers = items + 2 * 32;
    // Barriers, indices
    static constexpr int q_full = 0, q_empty = q_places, out_full = 2 * q_places,
                         item_full = out_full + q_places * warpgroups, item_empty = item_full + 2,
                         k_full = item_empty + 2, k_empty = k_full + stages, v_full = k_empty + stages,
                         v_empty = v_full + stages, barrier_count = v_empty + stages;
    static constexpr int bytes = barriers + 8 * barrier_count + 1024;  // and the way to the boundary
    static_assert(bytes <= 232448 && sizeof(Item) <= 32 && items % 8 == 0 && barriers % 8 == 0);
};

}  // namespace colonnade::hopper

namespace colonnade::cuda {
namespace {

using namespace hopper;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Scores of a warpgroup's 64 rows with one tile of keys.
template <int head_dim, int scores>
__device__ __forceinline__ void multiply_keys(float (&s)[scores], uint64_t q, uint64_t k) {
    using L = ForwardLayout<head_dim>;
    static_assert(scores == L::tile_columns / 2);
#pragma unroll
    for (int step = 0; step < head_dim / 16; ++step) {
        const uint64_t a = advance(q, step / 4 * L::q_slab_bytes + step % 4 * 32),
                       b = advance(k, step / 4 * L::slab_bytes + step % 4 * 32);
        if constexpr (scores == 64)
            multiply_shared(s, a, b, step > 0);
        else
            multiply_shared<false, false>(s, a, b, step > 0);
    }
}

template <int outputs, int pairs>
__device__ __forceinline__ void multiply_values(float (&o)[outputs], const uint32_t (&p)[pairs], uint64_t v) {
#pragma unroll
    for (int step = 0; step < pairs / 4; ++step) multiply_registers(o, p + 4 * step, advance(v, 2048 * step));
}

/// Online softmax: s becomes exp(scale s - base), sum (of this thread's columns) goes on; what was summed before is to be
/// multiplied by `decay`, which is 1 as long as the base stays. `scale`: times log2(e). The base, scale times the maximum,
/// lags behind by up to a factor of 2, which nearly always saves rescaling the outputs. (FlashAttention-4 lets it lag by
/// 2^8. Then a row that sees little but one key has a P there that bf16 rounds, instead of 1, and dQ twice the error.)
template <int scores>
__device__ __forceinline__ void soften(float (&s)[scores], float (&maximum)[2], float (&sum)[2], float (&decay)[2],
                                       float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float most[2] = {s[2 * r], s[2 * r + 1]};
#pragma unroll
        for (int j = 1; j < scores / 4; ++j) {
            most[0] = fmaxf(most[0], s[4 * j + 2 * r]);
            most[1] = fmaxf(most[1], s[4 * j + 2 * r + 1]);
        }
        most[0] = fmaxf(most[0], most[1]);
        most[0] = fmaxf(most[0], __shfl_xor_sync(whole_warp, most[0], 1));
        most[0] = fmaxf(most[0], __shfl_xor_sync(whole_warp, most[0], 2));
        decay[r] = 1;
        if ((most[0] - maximum[r]) * scale > 1) {  // also the first finite one; false for -inf - -inf
            decay[r] = exp2_fast((maximum[r] - most[0]) * scale);
            maximum[r] = most[0];
        }
        const float base = maximum[r] == -INFINITY ? 0 : maximum[r] * scale;  // rows that have seen nothing yet
        float added[2] = {0, 0};
#pragma unroll
        for (int j = 0; j < scores / 4; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float& x = s[4 * j + 2 * r + e];
                x = exp2_fast(fmaf(x, scale, -base));
                added[e] += x;
            }
        sum[r] = fmaf(sum[r], decay[r], added[0] + added[1]);
    }
}

template <int pairs>
__device__ __forceinline__ void pack(uint32_t (&p)[pairs], const float (&s)[2 * pairs]) {
#pragma unroll
    for (int i = 0; i < pairs; ++i) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

template <int head_dim>
__device__ __forceinline__ void consume(const RowCta<ForwardLayout<head_dim>>& cta) {
    using L = ForwardLayout<head_dim>;
    const RowProblem& problem = cta.problem;
    const int warpgroup = uniform(static_cast<int>(threadIdx.x / 128)) - 1,
              warp = uniform(static_cast<int>(threadIdx.x / 32 % 4));
    const float scale = problem.scale * 1.44269504f;
    const auto release = [&](int empty) { arrive_as_warp(cta.barrier(empty), threadIdx.x % 32); };
    // Turns go round, one a tile and warpgroup: named barrier 1 + w lets warpgroup w issue its products.
    const int after = warpgroup + 1 < L::warpgroups ? warpgroup + 1 : 0;
    const auto take_turn = [&] { sync_named(1 + warpgroup, 256); };
    const auto pass_turn = [&] { arrive_named(1 + after, 256); };
    if (after == 0) pass_turn();

    constexpr int words = mask_words_of_thread(L::tile_columns);
    float s[L::tile_columns / 2], o[head_dim / 2];
    uint32_t p[L::tile_columns / 4];
    uint32_t tiles = 0;
    for (uint32_t n = 0;; ++n) {
        const Item& item = cta.take_item(n);  // in shared memory, as registers are few
        if (item.head < 0) return;
        float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, decay[2] = {1, 1};
#pragma unroll
        for (float& x : o) x = 0;
        wait(cta.barrier(L::q_full + n % L::q_places), n / L::q_places & 1);
        const uint32_t rows_address = cta.queries(n) + warpgroup * 64 * 128;
        const uint64_t q = k_major(rows_address);

        const auto keys = [&](uint32_t t) { return k_major(cta.keys(t % L::stages)); };
        const auto values = [&](uint32_t t) { return mn_major(cta.values(t % L::stages), L::slab_bytes); };
        const auto wait_keys = [&](uint32_t t) {
            wait(cta.barrier(L::k_full + t % L::stages), t / L::stages & 1);
            return uniform(*cta.mask(t % L::stages)) >> 2 * warpgroup & 3;
        };
        const auto wait_values = [&](uint32_t t) { wait(cta.barrier(L::v_full + t % L::stages), t / L::stages & 1); };
        const auto release_keys = [&](uint32_t t) { release(L::k_empty + static_cast<int>(t % L::stages)); };
        const auto release_values = [&](uint32_t t) { release(L::v_empty + static_cast<int>(t % L::stages)); };
        const auto mask_of = [&](uint32_t(&hidden)[words], uint32_t t, int mask) {
            for (uint32_t& x : hidden) x = 0;
            if (mask == by_words) read_mask(hidden, cta.words(t % L::stages, warpgroup), warp);
        };
        const auto rescale = [&] {
            if (__any_sync(whole_warp, decay[0] != 1 || decay[1] != 1)) {
#pragma unroll
                for (int j = 0; j < head_dim / 2; ++j) o[j] *= decay[j / 2 % 2];
            }
        };
        const uint32_t end = tiles + static_cast<uint32_t>(uniform(item.tiles));
        int mask = unmasked;
        bool has_turn = false;  // and `mask` is that of `tiles`
        while (tiles != end) {
            if (!has_turn) {
                mask = wait_keys(tiles);
                take_turn();
            }
            has_turn = false;
            if (mask >= closed) {
                pass_turn();
                release_keys(tiles);
                wait_values(tiles);
                release_values(tiles++);
                continue;
            }
            // Tiles from one that is not closed to the next that is.
            uint32_t hidden[words];
            begin_products();
            multiply_keys<head_dim>(s, q, keys(tiles));
            commit_products();
            pass_turn();
            mask_of(hidden, tiles, mask);
            wait_products<0>();
            hold(s);
            release_keys(tiles);
            hide_scores(s, hidden);
            soften(s, maximum, sum, decay, scale);
            wait_values(tiles);
            rescale();
            pack(p, s);
            for (uint32_t next = tiles + 1; next != end; ++next) {
                mask = wait_keys(next);
                hold(o), hold(p);
                take_turn();
                has_turn = mask >= closed;
                if (has_turn) break;
                begin_products();
                multiply_keys<head_dim>(s, q, keys(next));
                commit_products();
                begin_products();
                multiply_values(o, p, values(tiles));
                commit_products();
                pass_turn();
                mask_of(hidden, next, mask);
                wait_products<1>();
                hold(s);
                release_keys(next);
                hide_scores(s, hidden);
                soften(s, maximum, sum, decay, scale);
                // The next round's wait stands here as its branches keep the exponentials on this side of
                // wait_products, beside the products; nothing else does.
                hold(s), hold(sum), hold(decay);
                wait_values(next);
                wait_products<0>();
                hold(o), hold(p), hold(s);
                release_values(tiles);
                rescale();
                pack(p, s);
                tiles = next;
            }
            hold(o), hold(p);
            begin_products();
            multiply_values(o, p, values(tiles));
            commit_products();
            wait_products<0>();
            hold(o);
            release_values(tiles++);
        }

        const int64_t first_lse = (static_cast<int64_t>(item.batch) * problem.heads + item.head) * problem.rows;
        const int lane = lane_anew();
        const int first_row = item.first_row + 64 * warpgroup + 16 * warp + lane / 4;
        cta.return_item(n);
        float inverse[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            sum[r] += __shfl_xor_sync(whole_warp, sum[r], 1);
            sum[r] += __shfl_xor_sync(whole_warp, sum[r], 2);
            inverse[r] = sum[r] == 0 ? 0 : 1 / sum[r];
            const int at = first_row + 8 * r;
            if (lane % 4 == 0 && at < problem.rows)
                problem.lse[first_lse + at] = sum[r] == 0 ? -INFINITY : fmaf(maximum[r], problem.scale, logf(sum[r]));
        }
        // Over the warpgroup's own queries, which nobody reads any more.
        sync_named(1 + L::warpgroups + warpgroup, 128);
        write_outputs(o, inverse, rows_address, L::q_slab_bytes, warp, lane);
        fence_async();
        release(L::out_full + static_cast<int>(n % L::q_places) * L::warpgroups + warpgroup);
    }
}

#endif

template <int head_dim>
__global__ void __launch_bounds__(ForwardLayout<head_dim>::threads, 1)
    forward(const __grid_constant__ RowProblem problem, const __grid_constant__ ForwardMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using L = ForwardLayout<head_dim>;
    extern __shared__ char shared[];
    const uint32_t start = shared_address(shared), aligned = (start + 1023) / 1024 * 1024;
    const RowCta<L> cta{problem, maps, shared + (aligned - start), aligned};
    cta.run([](const RowCta<L>& of) { consume<head_dim>(of); });
#endif
}

/// Counters for Work::next, all zero between launches. Launches that run at the same time take different ones.
constexpr unsigned counters = 64;
__device__ unsigned item_counters[counters][2];

unsigned* next_counter() {
    static std::atomic<unsigned> turn{0};
    void* first = nullptr;
    check_cuda(cudaGetSymbolAddress(&first, item_counters), "the counters of attention");
    return static_cast<unsigned*>(first) + 2 * (turn++ % counters);
}

template <int head_dim>
void launch(const Context& ctx, const FlashMaskForward& args) {
    using L = ForwardLayout<head_dim>;
    RowProblem problem = row_problem<L>(args, next_counter());
    problem.lse = args.lse.as<float>();
    const ForwardMaps maps{make_tensor_map(args.q, L::tile_rows), make_tensor_map(args.k, L::tile_columns),
                           make_tensor_map(args.v, L::tile_columns), make_tensor_map(args.out, 64)};
    check_cuda(cudaFuncSetAttribute(forward<head_dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes),
               "flashmask forward");
    const unsigned grid = std::min(problem.work.items, static_cast<unsigned>(ctx.gpu->multiprocessors()));
    forward<head_dim><<<grid, L::threads, L::bytes, stream_of(ctx)>>>(problem, maps);
    check_launch("flashmask forward");
}

}  // namespace

bool hopper_supports(const Context& ctx, const FlashMaskForward& args) {
    const int64_t dim = args.q.size(3), length = std::max(args.q.size(1), args.k.size(1)),
                  items = args.q.size(0) * args.q.size(2) * ((args.q.size(1) + 127) / 128);
    return ctx.device == Device::cuda && ctx.gpu->runs_hopper_kernels() && (dim == 64 || dim == 128 || dim == 256) &&
           length < int64_t{1} << 30 && items < int64_t{1} << 30 && args.scale > 0 && has_tensor_map(args.q) &&
           has_tensor_map(args.k) && has_tensor_map(args.v) && has_tensor_map(args.out);
}

void hopper_forward(const Context& ctx, const FlashMaskForward& args) {
    if (args.q.size(3) == 64)
        launch<64>(ctx, args);
    else if (args.q.size(3) == 128)
        launch<128>(ctx, args);
    else
        launch<256>(ctx, args);
}

}  // namespace colonnade::cuda
