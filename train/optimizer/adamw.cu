#include "engine/device/gpu.cuh"
#include "engine/device/philox.cuh"
#include "engine/device/reduce.cuh"
#include "train/optimizer/adamw_kernels.h"
#include "train/optimizer/moment_codes.h"

namespace colonnade::cuda {
namespace {

// --- Four neighbouring elements, in registers and in memory ---

struct Quad {
    float at[4];
};

__device__ Quad load(const float* p) {
    const float4 x = *reinterpret_cast<const float4*>(p);
    return {x.x, x.y, x.z, x.w};
}
__device__ Quad load(const __nv_bfloat16* p) {
    const uint2 x = *reinterpret_cast<const uint2*>(p);
    return {__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u), __uint_as_float(x.y << 16),
            __uint_as_float(x.y & 0xffff0000u)};
}

__device__ void store(float* p, const Quad& x) {
    *reinterpret_cast<float4*>(p) = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
}
/// SplitFloat, engine/device/float16.h
__device__ Quad load_halves(const __nv_bfloat16* top, const int16_t* low) {
    const ushort4 t = *reinterpret_cast<const ushort4*>(top);
    const short4 l = *reinterpret_cast<const short4*>(low);
    return {__uint_as_float(joined_float(t.x, l.x)), __uint_as_float(joined_float(t.y, l.y)),
            __uint_as_float(joined_float(t.z, l.z)), __uint_as_float(joined_float(t.w, l.w))};
}
__device__ void store_halves(__nv_bfloat16* top, int16_t* low, const Quad& x) {
    SplitFloat halves[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) halves[j] = split_float(__float_as_uint(x.at[j]));
    *reinterpret_cast<ushort4*>(top) = make_ushort4(halves[0].top, halves[1].top, halves[2].top, halves[3].top);
    *reinterpret_cast<short4*>(low) = make_short4(halves[0].low, halves[1].low, halves[2].low, halves[3].low);
}

/// Random halves for four elements, each uniform in [0, 2^16).
struct Noise {
    uint32_t at[4];
};

/// Rounds away from zero with a probability equal to the fraction that truncation would cut off. Numbers that bf16 can
/// hold stay the same.
__device__ void store_at_random(__nv_bfloat16* p, const Quad& x, const Noise& noise) {
    uint32_t rounded[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const uint32_t bits = __float_as_uint(x.at[j]);
        const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
        rounded[j] = (finite ? bits + noise.at[j] : bits) >> 16;
    }
    *reinterpret_cast<uint2*>(p) = make_uint2(rounded[0] | rounded[1] << 16, rounded[2] | rounded[3] << 16);
}

// --- AdamW ---

constexpr int update_threads = 256, quads = 2;
/// Elements of a thread block: one word of the decay map. A thread takes four neighbours from each half, so that the
/// accesses of a warp, 16 bytes a thread (8 for bf16), are contiguous.
constexpr int update_elements = update_threads * quads * 4;
static_assert(update_elements == 32 * 64);

/// Moment: float, __nv_bfloat16, or uint8_t for codes.
template <typename Moment>
struct Update {
    __nv_bfloat16* weights;
    int16_t* low;
    Moment *m, *v;
    float *m_units, *v_units;  ///< of codes
    const float* gradients;
    const double* clip;
    const uint32_t* decay_map;
    int64_t begin;     ///< of the slice in the flat buffers, a multiple of 64
    int64_t elements;  ///< a multiple of 4
    AdamWCoefficients<float> c;
    uint2 seed, stream;
};

__device__ void update_element(float& w, float& m, float& v, float gradient, float keep,
                               const AdamWCoefficients<float>& c) {
    m = c.beta1 * m + c.one_minus_beta1 * gradient;
    v = c.beta2 * v + c.one_minus_beta2 * gradient * gradient;
    w = w * keep - c.step_size * m / (sqrtf(v) * c.v_scale + c.epsilon);
}

/// Random words for four elements of the slice.
template <typename Moment>
__device__ uint4 random_words(const Update<Moment>& u, int64_t at) {
    const int64_t quad = (u.begin + at) / 4;
    return philox4x32(
        make_uint4(static_cast<uint32_t>(quad), static_cast<uint32_t>(quad >> 32), u.stream.x, u.stream.y), u.seed);
}

template <typename Moment>
__device__ void store_moments(const Update<Moment>& u, int64_t at, const Quad& m, const Quad& v) {
    if constexpr (std::is_same_v<Moment, float>) {
        store(u.m + at, m);
        store(u.v + at, v);
    } else {
        const uint4 random = random_words(u, at);
        store_at_random(u.m + at, m, {random.x & 0xffffu, random.y & 0xffffu, random.z & 0xffffu, random.w & 0xffffu});
        store_at_random(u.v + at, v, {random.x >> 16, random.y >> 16, random.z >> 16, random.w >> 16});
    }
}

template <typename Moment>
__global__ void __launch_bounds__(update_threads) update(const Update<Moment> u) {
    const float clip = static_cast<float>(u.clip[1]);
    if (isnan(clip)) return;
    // Thread blocks have the borders that they would have without a slice: the first begins at -skipped within the
    // slice.
    const int64_t first_word = u.begin / update_elements, skipped = u.begin - first_word * update_elements;
    const uint32_t decays = u.decay_map[first_word + blockIdx.x];
    const int64_t begin = int64_t{blockIdx.x} * update_elements - skipped;
    // All loads are issued before the first use.
    Quad w[quads] = {}, m[quads] = {}, v[quads] = {}, g[quads] = {};
#pragma unroll
    for (int q = 0; q < quads; ++q) {
        const int64_t at = begin + (q * update_threads + static_cast<int>(threadIdx.x)) * 4;
        if (at < 0 || at >= u.elements) continue;
        w[q] = load_halves(u.weights + at, u.low + at);
        g[q] = load(u.gradients + at);
        m[q] = load(u.m + at);
        v[q] = load(u.v + at);
    }
#pragma unroll
    for (int q = 0; q < quads; ++q) {
        const int in_block = (q * update_threads + static_cast<int>(threadIdx.x)) * 4;
        const int64_t at = begin + in_block;
        if (at < 0 || at >= u.elements) continue;
        const float keep = decays >> (in_block / 64) & 1u ? u.c.keep : 1.0f;
#pragma unroll
        for (int j = 0; j < 4; ++j) update_element(w[q].at[j], m[q].at[j], v[q].at[j], clip * g[q].at[j], keep, u.c);
        store_halves(u.weights + at, u.low + at, w[q]);
        store_moments(u, at, m[q], v[q]);
    }
}

// As above, with 8-bit moments: 16 neighbouring threads have a block of codes.
__global__ void __launch_bounds__(update_threads) update_codes(const Update<uint8_t> u) {
    const float clip = static_cast<float>(u.clip[1]);
    if (isnan(clip)) return;
    const int64_t first_word = u.begin / update_elements, skipped = u.begin - first_word * update_elements;
    const uint32_t decays = u.decay_map[first_word + blockIdx.x];
    const int64_t begin = int64_t{blockIdx.x} * update_elements - skipped;
    Quad w[quads] = {}, g[quads] = {};
    uchar4 m_codes[quads] = {}, v_codes[quads] = {};
    MomentUnit of_m[quads] = {}, of_v[quads] = {};
#pragma unroll
    for (int q = 0; q < quads; ++q) {
        const int64_t at = begin + (q * update_threads + static_cast<int>(threadIdx.x)) * 4;
        if (at < 0 || at >= u.elements) continue;
        w[q] = load_halves(u.weights + at, u.low + at);
        g[q] = load(u.gradients + at);
        m_codes[q] = *reinterpret_cast<const uchar4*>(u.m + at);
        v_codes[q] = *reinterpret_cast<const uchar4*>(u.v + at);
        of_m[q].unit = u.m_units[at / moment_block];
        of_v[q].unit = u.v_units[at / moment_block];
    }
#pragma unroll
    for (int q = 0; q < quads; ++q) {
        const int in_block = (q * update_threads + static_cast<int>(threadIdx.x)) * 4;
        const int64_t at = begin + in_block;
        AdamWCoefficients<float> c = u.c;
        if (!(decays >> (in_block / 64) & 1u)) c.keep = 1;
        Quad m = {m_of(m_codes[q].x, of_m[q].unit), m_of(m_codes[q].y, of_m[q].unit), m_of(m_codes[q].z, of_m[q].unit),
                  m_of(m_codes[q].w, of_m[q].unit)};
        Quad v = {v_of(v_codes[q].x, of_v[q].unit), v_of(v_codes[q].y, of_v[q].unit), v_of(v_codes[q].z, of_v[q].unit),
                  v_of(v_codes[q].w, of_v[q].unit)};
        float largest_m = 0, largest_v = 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            update_in_f32(w[q].at[j], m.at[j], v.at[j], clip * g[q].at[j], c);
            largest_m = fmaxf(largest_m, fabsf(m.at[j]));
            largest_v = fmaxf(largest_v, v.at[j]);
        }
        constexpr int lanes = moment_block / 4;
        of_m[q] = m_unit(reduce_lanes<lanes>(largest_m, Largest()));
        of_v[q] = v_unit(reduce_lanes<lanes>(largest_v, Largest()));
        if (at < 0 || at >= u.elements) continue;
        store_halves(u.weights + at, u.low + at, w[q]);
        const uint4 random = random_words(u, at);
        *reinterpret_cast<uchar4*>(u.m + at) =
            make_uchar4(m_code(m.at[0], of_m[q], random.x & 0xffffu), m_code(m.at[1], of_m[q], random.y & 0xffffu),
                        m_code(m.at[2], of_m[q], random.z & 0xffffu), m_code(m.at[3], of_m[q], random.w & 0xffffu));
        *reinterpret_cast<uchar4*>(u.v + at) =
            make_uchar4(v_code(v.at[0], of_v[q], random.x >> 16), v_code(v.at[1], of_v[q], random.y >> 16),
                        v_code(v.at[2], of_v[q], random.z >> 16), v_code(v.at[3], of_v[q], random.w >> 16));
        if (threadIdx.x % lanes == 0) {
            u.m_units[at / moment_block] = of_m[q].unit;
            u.v_units[at / moment_block] = of_v[q].unit;
        }
    }
}

template <typename Moment>
void launch_update(const Context& ctx, const AdamWStep& a, const AdamWCoefficients<float>& c) {
    const int64_t n = a.weights.numel();
    const int64_t blocks = (a.begin % update_elements + n + update_elements - 1) / update_elements;
    const uint64_t stream = moment_rounding_stream + static_cast<uint64_t>(a.step);
    const Update<typename device_type<Moment>::type> u{
        .weights = as_device<bf16>(a.weights),
        .low = a.low.as<int16_t>(),
        .m = as_device<Moment>(a.m),
        .v = as_device<Moment>(a.v),
        .m_units = a.m_units.empty() ? nullptr : a.m_units.as<float>(),
        .v_units = a.v_units.empty() ? nullptr : a.v_units.as<float>(),
        .gradients = a.gradients.as<float>(),
        .clip = a.clip.as<double>(),
        .decay_map = reinterpret_cast<const uint32_t*>(a.decay_map.as<int32_t>()),
        .begin = a.begin,
        .elements = n,
        .c = c,
        .seed = {static_cast<uint32_t>(a.seed), static_cast<uint32_t>(a.seed >> 32)},
        .stream = {static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)}};
    if constexpr (std::is_same_v<Moment, uint8_t>)
        update_codes<<<static_cast<unsigned>(blocks), update_threads, 0, stream_of(ctx)>>>(u);
    else
        update<<<static_cast<unsigned>(blocks), update_threads, 0, stream_of(ctx)>>>(u);
    check_launch("adamw");
}

// --- Norm ---

constexpr int norm_threads = 512, total_threads = 1024;

/// Sums over the thread block in a fixed order; only thread 0 gets the sum.
template <int threads>
__device__ double sum_of_block(double own) {
    __shared__ double of_warp[threads / 32];
    for (int lane = 16; lane > 0; lane /= 2) own += __shfl_down_sync(0xffffffffu, own, lane);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = own;
    __syncthreads();
    double sum = 0;
    if (threadIdx.x == 0)
        for (int warp = 0; warp < threads / 32; ++warp) sum += of_warp[warp];
    return sum;
}

__global__ void __launch_bounds__(norm_threads)
    sum_squares_of_block(double* sums, const float* gradients, int64_t elements) {
    constexpr int in_flight = 4;  // loads per thread
    const int64_t begin = int64_t{blockIdx.x} * norm_block_elements;
    const int64_t end = min(begin + norm_block_elements, elements);
    double sum = 0;
    for (int64_t first = begin + 4 * static_cast<int>(threadIdx.x); first < end;
         first += in_flight * norm_threads * 4) {
        Quad g[in_flight] = {};
#pragma unroll
        for (int i = 0; i < in_flight; ++i)
            if (const int64_t at = first + i * norm_threads * 4; at < end) g[i] = load(gradients + at);
#pragma unroll
        for (int i = 0; i < in_flight; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) sum += static_cast<double>(g[i].at[j]) * static_cast<double>(g[i].at[j]);
    }
    sum = sum_of_block<norm_threads>(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(total_threads) add_sums(double* total, const double* sums, int64_t count) {
    double own = 0;
    for (int64_t i = threadIdx.x; i < count; i += total_threads) own += sums[i];
    own = sum_of_block<total_threads>(own);
    if (threadIdx.x == 0) *total += own;
}

__global__ void clip(double* out, const double* loss, double* held, double max_norm, UpdateLimits limits) {
    finish_norm(out, loss, held, max_norm, limits);
}

void require_fours(const char* op, std::initializer_list<Tensor> tensors) {
    for (const Tensor& t : tensors)
        if (!t.empty() && (reinterpret_cast<uintptr_t>(t.data) % 16 != 0 || t.numel() % 4 != 0))
            fail(Exit::internal, "{}: {} at {} cannot be read in fours", op, describe(t), t.data);
}

}  // namespace

void sum_squares(const Context& ctx, const SquareSums& a) {
    require_fours("sum_squares", {a.gradients});
    if (a.sums.numel() == 0) return;
    sum_squares_of_block<<<static_cast<unsigned>(a.sums.numel()), norm_threads, 0, stream_of(ctx)>>>(
        a.sums.as<double>(), a.gradients.as<float>(), a.gradients.numel());
    check_launch("sum_squares");
}

void add_up(const Context& ctx, const AddUp& a) {
    add_sums<<<1, total_threads, 0, stream_of(ctx)>>>(a.total.as<double>(), a.sums.as<double>(), a.sums.numel());
    check_launch("add_up");
}

void clip_factor(const Context& ctx, const ClipFactor& a) {
    clip<<<1, 1, 0, stream_of(ctx)>>>(a.out.as<double>(), a.loss.empty() ? nullptr : a.loss.as<double>(),
                                      a.held.empty() ? nullptr : a.held.as<double>(), a.max_norm, a.limits);
    check_launch("clip_factor");
}

void adamw(const Context& ctx, const AdamWStep& a, const AdamWCoefficients<float>& c) {
    require_fours("adamw", {a.weights, a.low, a.m, a.v, a.gradients});
    if (a.weights.numel() == 0) return;
    if (a.m.dtype == DType::u8)
        launch_update<uint8_t>(ctx, a, c);
    else if (a.m.dtype == DType::bf16)
        launch_update<bf16>(ctx, a, c);
    else
        launch_update<float>(ctx, a, c);
}

}  // namespace colonnade::cuda
