#include "layers/decode_linear.h"

#include <algorithm>
#include <cstring>

#include "engine/device/gemm.h"
#include "engine/device/vector_math.h"
#include "engine/device/wide_vectors.h"
#include "layers/cuda_kernels.h"
#include "layers/rmsnorm.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

// --- Products on the CPU ---

/// 32 bytes of numbers: one register.
template <typename T>
struct Lanes {
    static constexpr int count = 32 / sizeof(T);
    typedef T type __attribute__((vector_size(32)));
};

template <typename T>
[[gnu::always_inline]] inline typename Lanes<T>::type load_lanes(const T* from) {
    typename Lanes<T>::type lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}
[[gnu::always_inline]] inline Lanes<float>::type load_lanes(const bf16* from) {
    typedef uint16_t narrow __attribute__((vector_size(16)));
    typedef uint32_t wide __attribute__((vector_size(32)));
    narrow bits;
    std::memcpy(&bits, from, sizeof bits);
    return reinterpret_cast<Lanes<float>::type>(__builtin_convertvector(bits, wide) << 16);
}
template <typename T>
T widened(T x) {
    return x;
}
inline float widened(bf16 x) {
    return float_from_bf16(x.bits);
}

/// out[r] = x[r] . w for `rows` rows of x. A row takes the same steps for any number of rows.
template <int rows, typename T, typename W>
COLONNADE_WIDE_VECTORS void dot_rows(Rows<T> out, Rows<const T> x, const W* w, int64_t n) {
    constexpr int64_t lanes = Lanes<T>::count;
    constexpr int64_t chains = 4;  // sums that do not wait for each other
    typename Lanes<T>::type sum[rows][chains] = {};
    int64_t i = 0;
    for (; i + chains * lanes <= n; i += chains * lanes)
#pragma GCC unroll 4
        for (int64_t c = 0; c < chains; ++c) {
            const auto weights = load_lanes(w + i + c * lanes);
#pragma GCC unroll 2
            for (int r = 0; r < rows; ++r) sum[r][c] += weights * load_lanes(x[r] + i + c * lanes);
        }
    for (int r = 0; r < rows; ++r) {
        const auto all = (sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]);
        T sums[lanes], rest = 0;
        std::memcpy(sums, &all, sizeof sums);
        for (int64_t width = lanes / 2; width > 0; width /= 2)
            for (int64_t l = 0; l < width; ++l) sums[l] += sums[l + width];
        for (int64_t j = i; j < n; ++j) rest += widened(w[j]) * x[r][j];
        *out[r] = sums[0] + rest;
    }
}

/// The columns [begin, end) of out = x w^T.
template <typename T, typename W>
void product_columns(Rows<T> out, Rows<const T> x, const Tensor& w, int64_t rows, int64_t begin, int64_t end) {
    const int64_t n = w.size(1);
    const W* const weight = w.as<W>();
    int64_t r = 0;
    const auto take = [&]<int count>() {
        for (; r + count <= rows; r += count)
            for (int64_t j = begin; j < end; ++j)
                dot_rows<count, T, W>({out[r] + j, out.stride}, {x[r], x.stride}, weight + j * w.stride[0], n);
    };
    take.template operator()<2>();
    take.template operator()<1>();
}

template <typename T, typename W>
void product(const Tensor& out, const Tensor& x, const Tensor& w) {
    constexpr int64_t block = 16;  // columns whose weights stay in the first cache while all rows use them
    const int64_t rows = x.size(0), columns = w.size(0);
    const Rows<T> to{out.as<T>(), out.stride[0]};
    const Rows<const T> from{x.as<T>(), x.stride[0]};
#pragma omp parallel for schedule(static) if (columns * w.size(1) >= parallel_from)
    for (int64_t b = 0; b < (columns + block - 1) / block; ++b)
        product_columns<T, W>(to, from, w, rows, b * block, std::min(columns, (b + 1) * block));
}

void product_on_cpu(const Tensor& out, const Tensor& x, const Tensor& w) {
    dispatch_float(out.dtype, [&]<typename T>() {
        if (w.dtype != DType::bf16) return product<T, T>(out, x, w);
        if constexpr (std::is_same_v<T, float>)
            product<float, bf16>(out, x, w);
        else
            fail(Exit::internal, "decode_linear: a bf16 weight needs f32 activations");
    });
}

// --- What follows the product, on the CPU ---

template <typename T>
void add_low_rank(T* y, const T* h, const LowRank& adapters) {
    const int64_t rank = adapters.slices.front().b.size(1);
    const T scale = static_cast<T>(adapters.scale);
    for (const LowRank::Slice& slice : adapters.slices) {
        const T* const b = slice.b.as<T>();
        for (int64_t j = 0; j < slice.b.size(0); ++j) {
            T sum = 0;
            for (int64_t i = 0; i < rank; ++i) sum += b[j * slice.b.stride[0] + i] * h[i];
            y[slice.begin + j] += scale * sum;
        }
        h += rank;
    }
}

template <typename T>
COLONNADE_WIDE_VECTORS void swiglu_row(T* out, const T* gate, const T* up, int64_t n) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) out[j] = gate[j] / (1 + vexp(-gate[j])) * up[j];
}

template <typename T>
void finish_on_cpu(const DecodeFinishing& args) {
    const DecodeLinear& a = args.linear;
    const int64_t n = a.weight.size(0);
    const T* const bias = a.bias.empty() ? nullptr : a.bias.as<T>();
    for (int64_t r = 0; r < a.in.size(0); ++r) {
        T* const y = args.product.as<T>() + r * args.product.stride[0];
        T* const out = a.out.as<T>() + r * a.out.stride[0];
        if (bias)
            for (int64_t j = 0; j < n; ++j) y[j] += bias[j];
        if (!args.h.empty()) add_low_rank<T>(y, args.h.as<T>() + r * args.h.stride[0], *a.adapters);
        if (a.finish == DecodeFinish::swiglu) {
            swiglu_row(out, y, y + n / 2, n / 2);
        } else if (!a.add.empty()) {
            const T* const add = a.add.as<T>() + r * a.add.stride[0];
            for (int64_t j = 0; j < n; ++j) out[j] = add[j] + y[j];
        } else if (out != y) {
            std::copy_n(y, n, out);
        }
    }
}

// --- Both devices ---

/// The first rows of scratch memory as [rows, width].
Tensor rows_of(const Tensor& scratch, int64_t rows, int64_t width) {
    return scratch.slice(0, 0, rows * width).view({rows, width});
}

void check(const Context& ctx, const DecodeLinear& a) {
    const int64_t rows = a.in.size(0), k = a.weight.size(1), n = a.weight.size(0);
    const ShapeCheck held(ctx, "decode_linear", a.in.dtype);
    held("weight", a.weight, a.weight.dtype, {n, k});
    require(a.weight.dtype == a.in.dtype || (a.weight.dtype == DType::bf16 && a.in.dtype == DType::f32),
            "decode_linear: weight is {}, in {}", a.weight, a.in);
    held("in", a.in, {rows, k});
    held("out", a.out, a.out.dtype, {rows, a.finish == DecodeFinish::swiglu ? n / 2 : n});
    require(a.out.dtype == a.in.dtype || a.out.dtype == sum_dtype(a.in.dtype), "decode_linear: out is {}", a.out);
    if (!a.bias.empty()) held("bias", a.bias, {n});
    if (!a.norm.empty()) held("norm", a.norm, {k});
    if (!a.add.empty()) held("add", a.add, {rows, n});
    require(a.add.empty() || a.finish == DecodeFinish::none, "decode_linear: a sum and SwiGLU together");
    if (a.adapters && !a.adapters->empty()) held("a", a.adapters->a, {a.adapters->a.size(0), k});
}

/// out = x w^T for many rows on a GPU, and any on the CPU.
void multiply(const Context& ctx, const Tensor& out, const Tensor& x, const Tensor& w) {
    if (ctx.device == Device::cuda) return gemm(ctx, {.c = out, .a = x, .b = w, .transpose_b = true});
    const PhaseTimer timer(ctx, "gemm");
    product_on_cpu(out, x, w);
}

void in_steps(const Context& ctx, const DecodeLinear& a) {
    const int64_t rows = a.in.size(0), k = a.weight.size(1), n = a.weight.size(0);
    const DecodeScratch& scratch = a.scratch;
    Tensor x = a.in;
    if (!a.norm.empty()) {
        x = rows_of(scratch.normed, rows, k);
        rmsnorm_forward(ctx,
                        {.out = x, .rstd = scratch.rstd.slice(0, 0, rows), .in = a.in, .weight = a.norm, .eps = a.eps});
    }
    const bool adapted = a.adapters && !a.adapters->empty();
    const bool plain =
        !adapted && a.bias.empty() && a.add.empty() && a.finish == DecodeFinish::none;  // the product is the result
    const Tensor y = plain ? a.out : rows_of(scratch.product, rows, n);
    multiply(ctx, y, x, a.weight);
    Tensor h;
    if (adapted) multiply(ctx, h = rows_of(scratch.h, rows, a.adapters->a.size(0)), x, a.adapters->a);
    if (plain) return;
    const DecodeFinishing rest{a, y, h};
    if (ctx.device == Device::cuda) return cuda::finish_decode_linear(ctx, rest);
    dispatch_float(a.in.dtype, [&]<typename T>() { finish_on_cpu<T>(rest); });
}

}  // namespace

DecodeScratch DecodeScratch::lay_out(Arena& arena, DType dtype, const Sizes& w) {
    const auto sums = [&](int64_t n) { return arena.tensor("decode", sum_dtype(dtype), {n}); };
    return {.normed = arena.tensor("decode", dtype, {w.rows * w.in_features}),
            .rstd = sums(w.rows),
            .product = sums(w.rows * w.out_features),
            .h = sums(w.rows * w.low_rank)};
}

void decode_linear(const Context& ctx, const DecodeLinear& args) {
    check(ctx, args);
    if (args.in.size(0) == 0) return;
    if (ctx.device == Device::cuda && cuda::decode_kernel_takes(args)) return cuda::decode_linear(ctx, args);
    in_steps(ctx, args);
}

}  // namespace colonnade
