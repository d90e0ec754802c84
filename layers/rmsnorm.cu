// A row belongs to a group of threads, which keep it in registers between the sum and its use: eight lanes for a head
// of 128, two warps for a width of 2048, a CTA of 512 for 16384. In the backward a CTA loops over many rows and keeps
// its part of dweight in registers; the parts are added as in layers/partial_sums.h.

#include <algorithm>

#include "engine/device/gpu.cuh"
#include "engine/device/reduce.cuh"
#include "engine/device/vectors.cuh"
#include "layers/cuda_kernels.h"
#include "layers/partial_sums.h"

namespace colonnade::cuda {
namespace {

/// Rows of [tokens, heads, width]; a [tokens, width] tensor has one head.
struct Heads {
    __nv_bfloat16* data;
    int64_t token_stride, head_stride;
};

struct Norm {
    Heads in, delta, sum, out;  ///< forward
    Heads dout, din;            ///< backward, which also uses in
    const __nv_bfloat16* weight;
    float *rstd, *partials;
    int rows, heads, width;
    float eps;
    bool accumulate;
};

/// `group` threads share a row; each holds `packs` packs of it.
template <int group, int packs>
struct Layout {
    static constexpr int threads = group > 256 ? group : 256, groups = threads / group, warps = threads / 32;
    /// CTAs of the backward per multiprocessor.
    static constexpr int ctas = threads > 256 ? 1 : packs > 2 ? 2 : 4;
};

/// One row, in the registers of its group.
template <int group, bool aligned>
struct Row {
    int token, head, width;
    bool live;  ///< false after the last row: reads give 0, nothing is written

    __device__ Row(const Norm& a, int row) : width(a.width), live(row < a.rows) {
        token = static_cast<int>(static_cast<unsigned>(row) / static_cast<unsigned>(a.heads));
        head = row - token * a.heads;
    }
    __device__ static int column(int k) { return (static_cast<int>(threadIdx.x) % group + k * group) * pack_size; }
    __device__ bool has(int k) const { return live && column(k) < width; }
    __device__ Pack load(const Heads& t, int k) const {
        return has(k) ? load_pack<aligned>(at(t, k), width - column(k)) : zero_pack();
    }
    __device__ void store(const Heads& t, int k, const Pack& pack) const {
        if (has(k)) store_pack<aligned>(at(t, k), pack, width - column(k));
    }

  private:
    __device__ __nv_bfloat16* at(const Heads& t, int k) const {
        return t.data + token * t.token_stride + head * t.head_stride + column(k);
    }
};

template <int group, bool aligned>
__device__ Pack load_weight(const Norm& a, int k) {
    const int column = Row<group, aligned>::column(k);
    return column < a.width ? load_pack<aligned>(a.weight + column, a.width - column) : zero_pack();
}

template <int group, int packs, bool aligned>
__global__ void __launch_bounds__(Layout<group, packs>::threads) forward_kernel(Norm a) {
    using L = Layout<group, packs>;
    __shared__ float slots[L::warps];
    const int index = static_cast<int>(blockIdx.x) * L::groups + static_cast<int>(threadIdx.x) / group;
    const Row<group, aligned> row(a, index);
    Pack in[packs], weight[packs];
#pragma unroll
    for (int k = 0; k < packs; ++k) in[k] = row.load(a.in, k);
    if (a.delta.data) {
        Pack delta[packs];
#pragma unroll
        for (int k = 0; k < packs; ++k) delta[k] = row.load(a.delta, k);
#pragma unroll
        for (int k = 0; k < packs; ++k) {
            float sum[pack_size];
#pragma unroll
            for (int e = 0; e < pack_size; ++e) sum[e] = in[k][e] + delta[k][e];
            in[k] = pack_of(sum);  // rounded, as backward will read it
            row.store(a.sum, k, in[k]);
        }
    }
#pragma unroll
    for (int k = 0; k < packs; ++k) weight[k] = load_weight<group, aligned>(a, k);
    float square = 0;
#pragma unroll
    for (int k = 0; k < packs; ++k)
#pragma unroll
        for (int e = 0; e < pack_size; ++e) square += in[k][e] * in[k][e];
    square = reduce_group<group, L::threads>(square, slots, Add{});
    const float rstd = rsqrtf(square / static_cast<float>(a.width) + a.eps);
    if (row.live && threadIdx.x % group == 0) a.rstd[index] = rstd;
#pragma unroll
    for (int k = 0; k < packs; ++k) {
        float out[pack_size];
#pragma unroll
        for (int e = 0; e < pack_size; ++e) out[e] = weight[k][e] * (in[k][e] * rstd);
        row.store(a.out, k, pack_of(out));
    }
}

/// Adds the groups' parts of dweight to one row of partial sums.
template <int group, int packs>
__device__ void write_partials(const Norm& a, const float (&sums)[packs][pack_size]) {
    using L = Layout<group, packs>;
    float* const partials = a.partials + static_cast<int64_t>(blockIdx.x) * a.width;
    if constexpr (L::groups == 1) {
#pragma unroll
        for (int k = 0; k < packs; ++k)
#pragma unroll
            for (int e = 0; e < pack_size; ++e) {
                const int column = Row<group, true>::column(k) + e;
                if (column < a.width) partials[column] = sums[k][e];
            }
    } else {
        __shared__ __align__(16) float parts[L::groups][group * packs * pack_size];
        float* const part = parts[threadIdx.x / group];
#pragma unroll
        for (int k = 0; k < packs; ++k) {
            auto* const own = reinterpret_cast<float4*>(part + Row<group, true>::column(k));
            own[0] = make_float4(sums[k][0], sums[k][1], sums[k][2], sums[k][3]);
            own[1] = make_float4(sums[k][4], sums[k][5], sums[k][6], sums[k][7]);
        }
        __syncthreads();
        for (int column = static_cast<int>(threadIdx.x); column < a.width; column += L::threads) {
            float sum = parts[0][column];
#pragma unroll
            for (int g = 1; g < L::groups; ++g) sum += parts[g][column];
            partials[column] = sum;
        }
    }
}

template <int group, int packs, bool aligned>
__global__ void __launch_bounds__(Layout<group, packs>::threads, aligned ? Layout<group, packs>::ctas : 1)
    backward_kernel(Norm a) {
    using L = Layout<group, packs>;
    __shared__ float slots[2][L::warps];
    float sums[packs][pack_size] = {};
    int turn = 0;
    const int step = static_cast<int>(gridDim.x) * L::groups;
    // All groups of a CTA run the same number of iterations, because the lanes of a warp may belong to several groups.
    for (int first = static_cast<int>(blockIdx.x) * L::groups; first < a.rows; first += step, turn = 1 - turn) {
        const int index = first + static_cast<int>(threadIdx.x) / group;
        const Row<group, aligned> row(a, index);
        Pack in[packs], dout[packs], before[packs];
#pragma unroll
        for (int k = 0; k < packs; ++k) {
            in[k] = row.load(a.in, k);
            dout[k] = row.load(a.dout, k);
            before[k] = a.accumulate ? row.load(a.din, k) : zero_pack();
        }
        const float rstd = row.live ? a.rstd[index] : 0;
        float dot = 0;
#pragma unroll
        for (int k = 0; k < packs; ++k) {
            const Pack weight = load_weight<group, aligned>(a, k);
#pragma unroll
            for (int e = 0; e < pack_size; ++e) {
                dot += weight[e] * dout[k][e] * in[k][e];
                sums[k][e] += dout[k][e] * (in[k][e] * rstd);
            }
        }
        dot = reduce_group<group, L::threads>(dot, slots[turn], Add{});
        if (!a.din.data) continue;
        const float shrink = dot / static_cast<float>(a.width) * rstd * rstd;
#pragma unroll
        for (int k = 0; k < packs; ++k) {
            const Pack weight = load_weight<group, aligned>(a, k);
            float din[pack_size];
#pragma unroll
            for (int e = 0; e < pack_size; ++e)
                din[e] = before[k][e] + rstd * (weight[e] * dout[k][e] - in[k][e] * shrink);
            row.store(a.din, k, pack_of(din));
        }
    }
    if (a.partials) write_partials<group, packs>(a, sums);
}

Heads heads_of(const Tensor& t) {
    if (t.empty()) return {nullptr, 0, 0};
    return {as_device<bf16>(t), t.stride[0], t.rank == 3 ? t.stride[1] : 0};
}

/// Operands that both directions use.
Norm norm_of(const char* op, const Tensor& in, const Tensor& weight, const Tensor& rstd) {
    Norm a{};
    a.in = heads_of(in);
    a.weight = as_device<bf16>(weight);
    a.rstd = rstd.as<float>();
    a.heads = in.rank == 3 ? static_cast<int>(in.size(1)) : 1;
    a.width = static_cast<int>(in.size(in.rank - 1));
    const int64_t rows = in.size(0) * a.heads;
    a.rows = static_cast<int>(rows);
    if (in.size(in.rank - 1) > 16384 || rows > (1 << 30))
        fail(Exit::internal, "{}: in is {}, the kernel takes rows of at most 16384, and 2^30 of them", op, in);
    return a;
}

/// Calls body.operator()<group, packs>() for the smallest layout that holds a row of this width.
template <typename Body>
void for_width(int width, Body&& body) {
    if (width <= 128) return body.template operator()<8, 2>();
    if (width <= 256) return body.template operator()<16, 2>();
    if (width <= 1024) return body.template operator()<32, 4>();
    if (width <= 2048) return body.template operator()<64, 4>();
    if (width <= 4096) return body.template operator()<128, 4>();
    if (width <= 8192) return body.template operator()<256, 4>();
    return body.template operator()<512, 4>();
}

}  // namespace

void rmsnorm_forward(const Context& ctx, const RmsNormForward& args) {
    Norm a = norm_of("rmsnorm_forward", args.in, args.weight, args.rstd);
    a.out = heads_of(args.out);
    a.delta = heads_of(args.delta);
    if (a.delta.data) a.sum = heads_of(args.sum);
    a.eps = static_cast<float>(args.eps);
    if (a.rows == 0 || a.width == 0) return;
    const bool aligned = has_packs(args.in) && has_packs(args.out) && has_packs(args.delta) &&
                         (args.delta.empty() || has_packs(args.sum)) && has_packs(args.weight);
    for_width(a.width, [&]<int group, int packs>() {
        using L = Layout<group, packs>;
        const auto kernel = aligned ? forward_kernel<group, packs, true> : forward_kernel<group, packs, false>;
        const int ctas = (a.rows + L::groups - 1) / L::groups;
        kernel<<<ctas, L::threads, 0, stream_of(ctx)>>>(a);
    });
    check_launch("rmsnorm_forward");
}

void rmsnorm_backward(const Context& ctx, const RmsNormBackward& args) {
    Norm a = norm_of("rmsnorm_backward", args.in, args.weight, args.rstd);
    a.dout = heads_of(args.dout);
    a.din = heads_of(args.din);
    a.accumulate = args.din_mode == Grad::accumulate && a.din.data;
    if (!args.dweight.empty()) a.partials = reinterpret_cast<float*>(args.scratch.data);
    if (a.rows == 0 || a.width == 0 || (!a.din.data && !a.partials)) return;
    const bool aligned = has_packs(args.in) && has_packs(args.dout) && has_packs(args.din) && has_packs(args.weight);
    int ctas = 0;
    for_width(a.width, [&]<int group, int packs>() {
        using L = Layout<group, packs>;
        const auto kernel = aligned ? backward_kernel<group, packs, true> : backward_kernel<group, packs, false>;
        ctas = std::min({(a.rows + L::groups - 1) / L::groups, L::ctas * ctx.gpu->multiprocessors(),
                         static_cast<int>(norm_partials(a.width))});
        kernel<<<ctas, L::threads, 0, stream_of(ctx)>>>(a);
    });
    check_launch("rmsnorm_backward");
    if (a.partials)
        add_partial_sums(ctx,
                         {.sum = args.dweight.as<float>(), .partials = a.partials, .count = ctas, .width = a.width});
}

}  // namespace colonnade::cuda
