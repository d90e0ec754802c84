#include "layers/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

using std::numbers::pi;

void check_above(const char* key, double value, double limit) {
    if (!(value > limit) || !std::isfinite(value))
        fail(Exit::data, "{} is {}, expected a finite number above {}", key, value, limit);
}

void check_not_negative(const char* key, double value) {
    if (!(value >= 0) || !std::isfinite(value))
        fail(Exit::data, "{} is {}, expected a finite number, zero or above", key, value);
}

void check_scaling(const RopeScaling& s) {
    using Kind = RopeScaling::Kind;
    if (s.kind == Kind::none) return;
    check_above("rope_scaling.factor", s.factor, 0);
    if (s.kind == Kind::linear) return;
    check_above("rope_scaling.original_max_position_embeddings", s.original_max_position, 0);
    if (s.kind == Kind::llama3) {
        check_above("rope_scaling.low_freq_factor", s.low_freq_factor, 0);
        check_above("rope_scaling.high_freq_factor", s.high_freq_factor, s.low_freq_factor);
    } else {
        check_above("rope_scaling.beta_slow", s.beta_slow, 0);
        check_above("rope_scaling.beta_fast", s.beta_fast, s.beta_slow);
        check_not_negative("rope_scaling.attention_factor", s.attention_factor);
        check_not_negative("rope_scaling.mscale", s.mscale);
        check_not_negative("rope_scaling.mscale_all_dim", s.mscale_all_dim);
    }
}

/// Keeps fast frequencies (many turns over the original context), divides slow ones by the factor, blends linearly
/// between.
double llama3_frequency(double frequency, const RopeScaling& s) {
    const double turns = s.original_max_position * frequency / (2 * pi);
    const double keep = std::clamp((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
    return (1 - keep) * frequency / s.factor + keep * frequency;
}

/// Keeps the frequencies before element `low`, divides those from `high` on, and ramps between.
void scale_yarn(std::vector<double>& inverse, double theta, const RopeScaling& s) {
    const auto dim = static_cast<double>(2 * inverse.size());
    // The (fractional) element that makes this number of turns over the original context.
    const auto element_of = [&](double turns) {
        return dim * std::log(s.original_max_position / (turns * 2 * pi)) / (2 * std::log(theta));
    };
    double low = element_of(s.beta_fast), high = element_of(s.beta_slow);
    if (s.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(low, 0.0);
    high = std::min(high, dim - 1);
    if (low == high) high += 0.001;
    for (size_t i = 0; i < inverse.size(); ++i) {
        const double divided = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        inverse[i] *= divided / s.factor + (1 - divided);
    }
}

double yarn_attention_factor(const RopeScaling& s) {
    const auto scale = [&](double mscale) { return s.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(s.factor) + 1; };
    if (s.attention_factor > 0) return s.attention_factor;
    if (s.mscale > 0 && s.mscale_all_dim > 0) return scale(s.mscale) / scale(s.mscale_all_dim);
    return scale(1);
}

template <typename T>
void fill_angles(T* cos, T* sin, int64_t cos_stride, int64_t sin_stride, std::span<const int32_t> positions,
                 const RopeFrequencies& frequencies) {
    const auto tokens = std::ssize(positions), half = std::ssize(frequencies.inverse);
#pragma omp parallel for schedule(static) if (tokens * half >= parallel_from)
    for (int64_t t = 0; t < tokens; ++t)
        for (int64_t i = 0; i < half; ++i) {
            const double angle = positions[static_cast<size_t>(t)] * frequencies.inverse[static_cast<size_t>(i)];
            cos[t * cos_stride + i] = static_cast<T>(std::cos(angle) * frequencies.attention_factor);
            sin[t * sin_stride + i] = static_cast<T>(std::sin(angle) * frequencies.attention_factor);
        }
}

template <typename T>
void rotate(T* x, const T* cos, const T* sin, T direction, int64_t half) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        const T a = x[i], b = x[i + half], c = cos[i], s = direction * sin[i];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

}  // namespace

RopeFrequencies rope_frequencies(int64_t head_dim, double theta, const RopeScaling& scaling) {
    if (head_dim <= 0 || head_dim % 2)
        fail(Exit::data, "head_dim is {}, expected an even number: rotary embedding rotates pairs of elements",
             head_dim);
    check_above("rope_theta", theta, 1);
    check_scaling(scaling);
    RopeFrequencies result;
    for (int64_t i = 0; i < head_dim; i += 2)
        result.inverse.push_back(std::pow(theta, -static_cast<double>(i) / static_cast<double>(head_dim)));
    switch (scaling.kind) {
        case RopeScaling::Kind::none:
            break;
        case RopeScaling::Kind::linear:
            for (double& f : result.inverse) f /= scaling.factor;
            break;
        case RopeScaling::Kind::llama3:
            for (double& f : result.inverse) f = llama3_frequency(f, scaling);
            break;
        case RopeScaling::Kind::yarn:
            scale_yarn(result.inverse, theta, scaling);
            result.attention_factor = yarn_attention_factor(scaling);
    }
    return result;
}

void rope_angles(const Context& ctx, const RopeAngles& args) {
    const DType dtype = ctx.device == Device::cuda ? DType::bf16 : args.cos.dtype;  // of the tensors to rotate
    const ShapeCheck check(ctx, "rope_angles", dtype);
    check("positions", args.positions, DType::i32, {args.positions.size(0)});
    check("cos", args.cos, sum_dtype(dtype), {args.positions.size(0), std::ssize(args.frequencies.inverse)});
    check.same("sin", args.sin, args.cos);
    const PhaseTimer timer(ctx, "rope");
    if (ctx.device == Device::cuda) return cuda::rope_angles(ctx, args);
    dispatch_float(args.cos.dtype, [&]<typename T>() {
        fill_angles(args.cos.as<T>(), args.sin.as<T>(), args.cos.stride[0], args.sin.stride[0],
                    elements<const int32_t>(args.positions), args.frequencies);
    });
}

void rope_apply(const Context& ctx, const RopeApply& args) {
    const ShapeCheck check(ctx, "rope_apply", args.x.dtype);
    const int64_t tokens = args.x.size(0), heads = args.x.size(1), half = args.x.size(2) / 2;
    check("x", args.x, {tokens, heads, 2 * half});
    check("cos", args.cos, sum_dtype(args.x.dtype), {tokens, half});
    check("sin", args.sin, sum_dtype(args.x.dtype), {tokens, half});
    const PhaseTimer timer(ctx, "rope");
    if (ctx.device == Device::cuda) return cuda::rope_apply(ctx, args);
    dispatch_float(args.x.dtype, [&]<typename T>() {
        T* const x = args.x.as<T>();
        const T *const cos = args.cos.as<T>(), *const sin = args.sin.as<T>();
        const T direction = args.backward ? -1 : 1;
#pragma omp parallel for schedule(static) if (tokens * heads * half >= parallel_from)
        for (int64_t t = 0; t < tokens; ++t)
            for (int64_t h = 0; h < heads; ++h)
                rotate(x + t * args.x.stride[0] + h * args.x.stride[1], cos + t * args.cos.stride[0],
                       sin + t * args.sin.stride[0], direction, half);
    });
}

}  // namespace colonnade
