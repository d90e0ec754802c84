// FlashMask forward on Hopper: the loop of FlashAttention-3 (arXiv 2407.08608) over the active tiles of the plan.
//
// CTAs are persistent, one per multiprocessor. The first warpgroup of a CTA feeds it, one task per warp (row_feed.cuh):
// `schedule` takes work items from a counter, `load` brings queries, keys and values by TMA, `mask` turns the bounds of
// partial tiles into bits, `store` sends outputs off. The other warpgroups compute 64 rows each. There are two of them,
// or three for head dim 64, which needs the same softmax for half the products. While the tensor cores multiply
// probabilities and values of one tile, the scores of the next tile become probabilities. Warpgroups take turns to
// issue products, so that the exponentials of one overlap with the products of the others. A warpgroup skips tiles that
// are hidden from all its rows.
//
// Queries have two buffers, or one for head dim 256; the outputs of an item leave through the buffer of its queries.
// Tiles are visited from the last columns to the first, in the same order however the mask is expressed.

#include <atomic>
#include <cmath>

#include "attention/hopper/hopper.h"
#include "attention/hopper/row_consumer.cuh"
#include "attention/hopper/row_problem.h"
#include "engine/device/gpu.cuh"
#include "engine/device/hopper/tensor_map.h"

namespace colonnade::hopper {

constexpr RowShape forward_shape(int head_dim) {
    return {.head_dim = head_dim,
            .warpgroups = head_dim == 64 ? 3 : 2,
            .tile_columns = head_dim == 256 ? 64 : 128,
            .q_places = head_dim == 256 ? 1 : 2,
            .stages = head_dim == 64 ? 4 : 2,
            .v_stages = head_dim == 64 ? 4 : 2,
            .gradient = false,
            .feeder_registers = head_dim == 64 ? 32 : 40,
            .consumer_registers = head_dim == 64 ? 160 : 232};
}
template <int head_dim>
using ForwardLayout = RowLayout<forward_shape(head_dim)>;

}  // namespace colonnade::hopper

namespace colonnade::cuda {
namespace {

using namespace hopper;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// s = Q K^T of a warpgroup's 64 rows and one tile of keys.
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

/// o += P V of one tile, P rounded in pairs.
template <int outputs, int pairs>
__device__ __forceinline__ void multiply_values(float (&o)[outputs], const uint32_t (&p)[pairs], uint64_t v) {
#pragma unroll
    for (int step = 0; step < pairs / 4; ++step) multiply_registers(o, p + 4 * step, advance(v, 2048 * step));
}

/// Online softmax: s becomes exp(scale s - base) and is added to `sum` (over this thread's columns). Earlier sums must
/// be multiplied by `decay`, which is 1 if the base has not changed. `scale` includes log2(e). The base is scale times
/// the maximum, and may lag behind it by a factor of 2, which nearly always saves rescaling the outputs.
/// (FlashAttention-4 allows 2^8. The P of a row that is dominated by one key is then rounded by bf16 instead of being
/// 1, and dQ has twice the error.)
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
        if ((most[0] - maximum[r]) * scale > 1) {  // true for the first finite maximum, false for -inf - -inf
            decay[r] = exp2_fast((maximum[r] - most[0]) * scale);
            maximum[r] = most[0];
        }
        const float base = maximum[r] == -INFINITY ? 0 : maximum[r] * scale;  // 0 if the row has seen nothing yet
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

/// A computing warpgroup of the forward pass.
template <int head_dim>
struct ForwardConsumer : RowConsumer<ForwardLayout<head_dim>> {
    using L = ForwardLayout<head_dim>;
    using Base = RowConsumer<L>;
    using Base::cta, Base::keys, Base::read_hidden, Base::release_keys, Base::release_values, Base::turns, Base::values,
        Base::wait_keys, Base::wait_values, Base::warp, Base::warpgroup;

    const float scale;                ///< times log2(e)
    float s[L::tile_columns / 2];     ///< scores of a tile, then its probabilities
    float o[head_dim / 2];            ///< outputs, not yet divided by `sum`
    uint32_t p[L::tile_columns / 4];  ///< probabilities, rounded in pairs
    uint32_t hidden[mask_words_of_thread(L::tile_columns)];
    float maximum[2], sum[2], decay[2];  ///< of the thread's two rows, see soften()

    __device__ explicit ForwardConsumer(const RowCta<L>& of) : Base(of), scale(of.problem.scale * 1.44269504f) {}

    __device__ __forceinline__ void run() {
        uint32_t tiles = 0;
        for (uint32_t n = 0;; ++n) {
            const Item& item = cta.take_item(n);  // in shared memory, because registers are few
            if (item.head < 0) return;
            clear();
            const uint32_t own_rows = this->wait_queries(n);
            const uint32_t end = tiles + static_cast<uint32_t>(uniform(item.tiles));
            add_tiles(k_major(own_rows), tiles, end);
            tiles = end;
            write(item, n, own_rows);
        }
    }

  private:
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int r = 0; r < 2; ++r) maximum[r] = -INFINITY, sum[r] = 0, decay[r] = 1;
#pragma unroll
        for (float& x : o) x = 0;
    }

    /// Adds tiles [t, end) in runs: each run goes from one tile that is not closed to the last before the next closed
    /// one.
    __device__ __forceinline__ void add_tiles(uint64_t q, uint32_t t, uint32_t end) {
        int mask = unmasked;
        bool has_turn = false;  // and `mask` is that of tile t
        while (t != end) {
            if (!has_turn) {
                mask = wait_keys(t);
                turns.take();
            }
            has_turn = false;
            if (mask >= closed) {
                this->skip_tile(t++);
                continue;
            }
            first_tile(q, t, mask);
            for (uint32_t next = t + 1; next != end; ++next) {
                mask = wait_keys(next);
                hold(o), hold(p);
                turns.take();
                has_turn = mask >= closed;
                if (has_turn) break;
                next_tile(q, t, mask);
                t = next;
            }
            last_tile(t++);
        }
    }

    /// The scores of tile t become probabilities, with nothing to overlap.
    __device__ __forceinline__ void first_tile(uint64_t q, uint32_t t, int mask) {
        begin_products();
        multiply_keys<head_dim>(s, q, k_major(keys(t)));
        commit_products();
        turns.pass();
        read_hidden(hidden, t, mask);
        wait_products<0>();
        hold(s);
        release_keys(t);
        hide_scores(s, hidden);
        soften(s, maximum, sum, decay, scale);
        wait_values(t);
        rescale();
        pack(p, s);
    }

    /// The scores of tile t + 1 become probabilities while the probabilities and values of tile t are multiplied.
    __device__ __forceinline__ void next_tile(uint64_t q, uint32_t t, int mask) {
        const uint32_t next = t + 1;
        begin_products();
        multiply_keys<head_dim>(s, q, k_major(keys(next)));
        commit_products();
        begin_products();
        multiply_values(o, p, mn_major(values(t), L::slab_bytes));
        commit_products();
        turns.pass();
        read_hidden(hidden, next, mask);
        wait_products<1>();
        hold(s);
        release_keys(next);
        hide_scores(s, hidden);
        soften(s, maximum, sum, decay, scale);
        // The wait for the next round's values is here because its branches keep the exponentials before wait_products,
        // where they overlap with the products. Nothing else does.
        hold(s), hold(sum), hold(decay);
        wait_values(next);
        wait_products<0>();
        hold(o), hold(p), hold(s);
        release_values(t);
        rescale();
        pack(p, s);
    }

    /// Adds the values of tile t.
    __device__ __forceinline__ void last_tile(uint32_t t) {
        hold(o), hold(p);
        begin_products();
        multiply_values(o, p, mn_major(values(t), L::slab_bytes));
        commit_products();
        wait_products<0>();
        hold(o);
        release_values(t);
    }

    __device__ __forceinline__ void rescale() {
        if (__any_sync(whole_warp, decay[0] != 1 || decay[1] != 1)) {
#pragma unroll
            for (int j = 0; j < head_dim / 2; ++j) o[j] *= decay[j / 2 % 2];
        }
    }

    /// Writes lse, and sends the outputs on their way. Returns the item.
    __device__ __forceinline__ void write(const Item& item, uint32_t n, uint32_t own_rows) {
        const RowProblem& problem = cta.problem;
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
        this->send(o, inverse, own_rows, n);
    }
};

#endif

template <int head_dim>
__global__ void __launch_bounds__(ForwardLayout<head_dim>::threads, 1)
    forward(const __grid_constant__ RowProblem problem, const __grid_constant__ RowMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    RowCta<ForwardLayout<head_dim>>{problem, maps, memory, shared_address(memory)}
        .template run<ForwardConsumer<head_dim>>();
#endif
}

/// Counters for Work::next, all zero between launches. Launches that run at the same time use different ones.
constexpr unsigned counters = 64;
__device__ unsigned item_counters[counters][2];

unsigned* next_counter() {
    static std::atomic<unsigned> turn{0};
    void* first = nullptr;
    check_cuda(cudaGetSymbolAddress(&first, item_counters), "attention counters");
    return static_cast<unsigned*>(first) + 2 * (turn++ % counters);
}

template <int head_dim>
void launch(const Context& ctx, const FlashMaskForward& args) {
    using L = ForwardLayout<head_dim>;
    RowProblem problem = row_problem<L>(args, next_counter());
    problem.lse = args.lse.as<float>();
    const RowMaps maps{.q = make_tensor_map(args.q, L::tile_rows),
                       .k = make_tensor_map(args.k, L::tile_columns),
                       .v = make_tensor_map(args.v, L::tile_columns),
                       .out = make_tensor_map(args.out, 64)};
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
