#include "train/optimizer/adamw.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/device/philox.h"
#include "layers/shape_check.h"
#include "train/optimizer/adamw_kernels.h"
#include "train/optimizer/moment_codes.h"

namespace colonnade {
namespace {

constexpr int64_t decay_granule = 64, decay_word = 32 * decay_granule;

/// Masters, moments and gradients are f32 on a GPU, although ops there take bf16.
ShapeCheck check_for(const Context& ctx, const char* op, DType dtype) {
    return {ctx, op, ctx.device == Device::cuda ? DType::bf16 : dtype};
}

void check_step(const Context& ctx, const AdamWStep& a) {
    const bool gpu = ctx.device == Device::cuda;
    const int64_t n = a.weights.numel();
    require(a.begin % decay_granule == 0 && a.begin >= 0 && a.begin + n <= a.parameters.size(),
            "adamw: elements {} to {} of {}", a.begin, a.begin + n, a.parameters.size());
    const DType dtype = gpu ? DType::f32 : a.weights.dtype;
    const bool narrow = (gpu && a.m.dtype == DType::bf16) || (dtype == DType::f32 && a.m.dtype == DType::u8);
    const DType moments = narrow ? a.m.dtype : dtype;
    const ShapeCheck check = check_for(ctx, "adamw", a.weights.dtype);
    check("weights", a.weights, gpu ? DType::bf16 : dtype, {n});
    if (gpu) check("low", a.low, DType::i16, {n});
    check("m", a.m, moments, {n});
    check("v", a.v, moments, {n});
    check("gradients", a.gradients, dtype, {n});
    check("clip", a.clip, DType::f64, {2});
    if (moments == DType::u8) {
        require(n % moment_block == 0, "adamw: {} elements are no whole blocks of {}", n, moment_block);
        check("m_units", a.m_units, DType::f32, {n / moment_block});
        check("v_units", a.v_units, DType::f32, {n / moment_block});
    }
    if (gpu) check("decay_map", a.decay_map, DType::i32, {decay_map_words(a.parameters.size())});
    require(gpu || a.low.empty(), "adamw: weights in two halves on the CPU");
    require(a.step >= 1, "adamw: step {}, the first is 1", a.step);
}

template <typename T>
AdamWCoefficients<T> coefficients(const AdamWStep& a) {
    const AdamWSettings& s = a.settings;
    const double t = static_cast<double>(a.step);
    return {.beta1 = static_cast<T>(s.beta1),
            .one_minus_beta1 = static_cast<T>(1 - s.beta1),
            .beta2 = static_cast<T>(s.beta2),
            .one_minus_beta2 = static_cast<T>(1 - s.beta2),
            // Positive: an element that never had a gradient would become 0 / 0 otherwise.
            .epsilon = std::max(static_cast<T>(s.epsilon), std::numeric_limits<T>::min()),
            .keep = static_cast<T>(1 - a.learning_rate * s.weight_decay),
            .step_size = static_cast<T>(a.learning_rate / (1 - std::pow(s.beta1, t))),
            .v_scale = static_cast<T>(1 / std::sqrt(1 - std::pow(s.beta2, t)))};
}

template <typename T>
void update(T* w, T* m, T* v, const T* g, int64_t n, T clip, const AdamWCoefficients<T>& c) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) {
        const T gradient = clip * g[i];
        m[i] = c.beta1 * m[i] + c.one_minus_beta1 * gradient;
        v[i] = c.beta2 * v[i] + c.one_minus_beta2 * gradient * gradient;
        w[i] = w[i] * c.keep - c.step_size * m[i] / (std::sqrt(v[i]) * c.v_scale + c.epsilon);
    }
}

/// The update of one block with 8-bit moments. `block` counts from the begin of the flat buffers, `at` from the slice's.
/// Each loop is one that the compiler vectorises.
void update_block(const AdamWStep& a, int64_t block, int64_t at, float clip, const AdamWCoefficients<float>& c) {
    float* const w = a.weights.as<float>() + at;
    const float* const g = a.gradients.as<float>() + at;
    uint8_t *const m_codes = a.m.as<uint8_t>() + at, *const v_codes = a.v.as<uint8_t>() + at;
    float &m_of_block = a.m_units.as<float>()[at / moment_block],
          &v_of_block = a.v_units.as<float>()[at / moment_block];
    const float m_before = m_of_block, v_before = v_of_block;
    float m[moment_block], v[moment_block], largest_m = 0, largest_v = 0;
#pragma omp simd
    for (int64_t i = 0; i < moment_block; ++i) {
        m[i] = m_of(m_codes[i], m_before);
        v[i] = v_of(v_codes[i], v_before);
        update_in_f32(w[i], m[i], v[i], clip * g[i], c);
    }
#pragma omp simd reduction(max : largest_m, largest_v)
    for (int64_t i = 0; i < moment_block; ++i) {
        largest_m = std::max(largest_m, std::abs(m[i]));
        largest_v = std::max(largest_v, v[i]);
    }
    const MomentUnit of_m = m_unit(largest_m), of_v = v_unit(largest_v);
    const Philox random{a.seed, moment_rounding_stream + static_cast<uint64_t>(a.step)};
    uint32_t words[moment_block];
#pragma omp simd
    for (int64_t i = 0; i < moment_block / 4; ++i) {
        const auto four = random.block(static_cast<uint64_t>(block * moment_block / 4 + i));
        for (int64_t j = 0; j < 4; ++j) words[4 * i + j] = four[static_cast<size_t>(j)];
    }
#pragma omp simd
    for (int64_t i = 0; i < moment_block; ++i) {
        m_codes[i] = m_code(m[i], of_m, words[i] & 0xffff);
        v_codes[i] = v_code(v[i], of_v, words[i] >> 16);
    }
    m_of_block = of_m.unit;
    v_of_block = of_v.unit;
}

void update_blocks(const AdamWStep& a, float clip) {
    const AdamWCoefficients<float> c = coefficients<float>(a);
    const std::vector<int32_t> decays = decay_map(a.parameters);
    const int64_t first = a.begin / moment_block, blocks = a.weights.numel() / moment_block;
    static_assert(moment_block == decay_granule);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
        AdamWCoefficients<float> own = c;
        if (!(static_cast<uint32_t>(decays[static_cast<size_t>((first + b) / 32)]) >> ((first + b) % 32) & 1))
            own.keep = 1;
        update_block(a, first + b, b * moment_block, clip, own);
    }
}

}  // namespace

int64_t square_sum_count(int64_t elements) {
    return (elements + norm_block_elements - 1) / norm_block_elements;
}

void sum_squares(const Context& ctx, const SquareSums& a) {
    const bool gpu = ctx.device == Device::cuda;
    const int64_t n = a.gradients.numel(), count = square_sum_count(n);
    const ShapeCheck check = check_for(ctx, "sum_squares", a.gradients.dtype);
    check("gradients", a.gradients, gpu ? DType::f32 : a.gradients.dtype, {n});
    check("sums", a.sums, DType::f64, {count});
    const PhaseTimer timer(ctx, "gradient norm");
    if (gpu) return cuda::sum_squares(ctx, a);
    auto* const sums = a.sums.as<double>();
    dispatch_float(a.gradients.dtype, [&]<typename T>() {
        const T* g = a.gradients.as<T>();
#pragma omp parallel for schedule(static)
        for (int64_t b = 0; b < count; ++b) {
            const int64_t end = std::min(n, (b + 1) * norm_block_elements);
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = b * norm_block_elements; i < end; ++i)
                sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
            sums[b] = sum;
        }
    });
}

void add_up(const Context& ctx, const AddUp& a) {
    const ShapeCheck check = check_for(ctx, "add_up", DType::f32);
    check("total", a.total, DType::f64, {1});
    check("sums", a.sums, DType::f64, {a.sums.numel()});
    const PhaseTimer timer(ctx, "gradient norm");
    if (ctx.device == Device::cuda) return cuda::add_up(ctx, a);
    const auto* sums = a.sums.as<double>();
    *a.total.as<double>() += std::accumulate(sums, sums + a.sums.numel(), 0.0);
}

void clip_factor(const Context& ctx, const ClipFactor& a) {
    const ShapeCheck check = check_for(ctx, "clip_factor", DType::f32);
    check("out", a.out, DType::f64, {2});
    if (!a.loss.empty()) check("loss", a.loss, DType::f64, {2});
    if (!a.held.empty()) check("held", a.held, DType::f64, {1});
    const PhaseTimer timer(ctx, "gradient norm");
    if (ctx.device == Device::cuda) return cuda::clip_factor(ctx, a);
    finish_norm(a.out.as<double>(), a.loss.empty() ? nullptr : a.loss.as<double>(),
                a.held.empty() ? nullptr : a.held.as<double>(), a.max_norm, a.limits);
}

void adamw(const Context& ctx, const AdamWStep& a) {
    check_step(ctx, a);
    const PhaseTimer timer(ctx, "adamw");
    if (ctx.device == Device::cuda) return cuda::adamw(ctx, a, coefficients<float>(a));
    const double* clip = a.clip.as<double>();
    if (std::isnan(clip[1])) return;
    if (a.m.dtype == DType::u8) return update_blocks(a, static_cast<float>(clip[1]));
    const int64_t end = a.begin + a.weights.numel();
    dispatch_float(a.weights.dtype, [&]<typename T>() {
        for (const Parameter& p : a.parameters.all()) {
            AdamWCoefficients<T> c = coefficients<T>(a);
            if (!p.decay) c.keep = 1;
            const int64_t first = std::max(p.begin, a.begin), last = std::min(p.begin + p.size(), end);
            if (first >= last) continue;
            const int64_t at = first - a.begin;
            update(a.weights.as<T>() + at, a.m.as<T>() + at, a.v.as<T>() + at, a.gradients.as<T>() + at, last - first,
                   static_cast<T>(clip[1]), c);
        }
    });
}

int64_t decay_map_words(int64_t elements) {
    return (elements + decay_word - 1) / decay_word;
}

std::vector<int32_t> decay_map(const ParameterList& parameters) {
    std::vector<uint32_t> map(static_cast<size_t>(decay_map_words(parameters.size())));
    int64_t end = 0;  // of the granules decided so far
    bool decays = false;
    for (const Parameter& p : parameters.all()) {
        if (p.size() == 0) continue;
        const int64_t first = p.begin / decay_granule;
        require(first >= end || p.decay == decays, "{} shares 64 elements with a parameter of other weight decay",
                p.name);
        decays = p.decay;
        end = (p.begin + p.size() + decay_granule - 1) / decay_granule;
        if (!decays) continue;
        for (int64_t granule = first; granule < end; ++granule)
            map[static_cast<size_t>(granule / 32)] |= uint32_t{1} << (granule % 32);
    }
    return {map.begin(), map.end()};
}

}  // namespace colonnade
