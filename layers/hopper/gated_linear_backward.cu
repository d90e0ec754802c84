// down_swiglu_backward on Hopper: SwiGLU's gradient in the epilogue of d_out W (gated_product.cuh).
//
// A tile is 256 columns of d_out W, the width of one wgmma. The sum runs over the weight's rows, so its part of a stage
// is MN-major: four slabs of 64 columns. The epilogue handles four groups of 64 columns. TMA loads boxes of gate and up
// while other steps multiply; the gradients overwrite them in shared memory and TMA stores them. The first group of a
// tile is loaded before the tile's sums are complete.

#include "layers/cuda_kernels.h"
#include "layers/hopper/gated_product.cuh"
#include "layers/swiglu.cuh"

namespace colonnade::cuda {
namespace {

/// Group g is computed in two halves, during steps `period` * g and the next. Then the next group is loaded, for which
/// the rest of the period is left.
struct GatedBackward {
    struct Maps {
        CUtensorMap in, weight, gate, up, dgate, dup;
    };
    static constexpr int columns = 256;
    static constexpr int groups = 4, period = 5, parts = period * (groups - 1) + 3;
    static constexpr bool weight_mn_major = true;
    /// Two slabs of 64 rows per half.
    template <typename Load>
    static __device__ void load_weight(const GatedProblem&, int half, int step, int column, const Load& load) {
        for (int slab = 2 * half; slab < 2 * half + 2; ++slab) load(slab * 64 * 64 * 2, column + 64 * slab, 64 * step);
    }
    template <typename Cta>
    struct Epilogue;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <typename Cta>
struct GatedBackward::Epilogue {
    using L = typename Cta::L;
    const Cta& cta;
    const int warp;
    uint32_t phase = 0;   ///< parity of the barrier of the next boxes
    int row, column = 0;  ///< corner of the warp's part of the tile whose boxes are loaded; row >= tokens: none

    __device__ Epilogue(const Cta& cta_, int warp_) : cta(cta_), warp(warp_), row(cta_.problem.tokens) {}

    __device__ __forceinline__ void finish(float (&)[128], int) const {}

    __device__ __forceinline__ bool has(int group) const {
        return row < cta.problem.tokens && column + 64 * group < cta.problem.ffn;
    }
    /// The warp's earlier stores from these buffers must have been issued (send): this waits until they have read them.
    __device__ __forceinline__ void load(int group) const {
        if (has(group) && lane_anew() == 0) {
            const uint32_t gate = cta.spots(warp), barrier = cta.loaded(warp);
            wait_stores_read();
            arrive_expecting(barrier, 2 * L::box_bytes);
            load_box(gate, &cta.maps.gate, barrier, column + 64 * group, row, evict_first);
            load_box(gate + L::box_bytes, &cta.maps.up, barrier, column + 64 * group, row, evict_first);
        }
    }
    /// Gradients of 32 columns. `rounded`: the group's sums.
    __device__ __forceinline__ void work_out(int half, const uint32_t* rounded) const {
        const int lane = lane_anew();
        // Address of the chunk of row lane % 16 that lane / 16 selects among chunks 0 and 1; among 2 i and 2 i + 1 it
        // is this ^ 32 i.
        const uint32_t at = cta.spots(warp) + lane % 16 * 128 + (lane / 16 ^ lane % 8) * 16;
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
            uint32_t gate[4], up[4];
            load_matrices(gate, at ^ (32 * i));
            load_matrices(up, (at ^ (32 * i)) + L::box_bytes);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const uint32_t g = gate[k], u = up[k], d = rounded[4 * i + k];
                const SwigluGradient low = swiglu_gradient(__uint_as_float(g << 16), __uint_as_float(u << 16),
                                                           __uint_as_float(d << 16)),
                                     high = swiglu_gradient(__uint_as_float(g & 0xffff0000u),
                                                            __uint_as_float(u & 0xffff0000u),
                                                            __uint_as_float(d & 0xffff0000u));
                gate[k] = pack_bf16(low.gate, high.gate);
                up[k] = pack_bf16(low.up, high.up);
            }
            store_matrices(at ^ (32 * i), gate[0], gate[1], gate[2], gate[3]);
            store_matrices((at ^ (32 * i)) + L::box_bytes, up[0], up[1], up[2], up[3]);
        }
    }
    __device__ __forceinline__ void send(int group) const {
        fence_async();
        __syncwarp();
        if (lane_anew() == 0) {
            const uint32_t gate = cta.spots(warp);
            store_box(&cta.maps.dgate, gate, column + 64 * group, row, evict_first);
            store_box(&cta.maps.dup, gate + L::box_bytes, column + 64 * group, row, evict_first);
            commit_stores();
        }
    }
    __device__ __forceinline__ void work_on(int part, const uint32_t (&rounded)[64], int tile) {
        const int group = part / period, step = part % period;
        if (step < 2) {
            if (!has(group)) return;
            if (step == 0) wait(cta.loaded(warp), phase), phase ^= 1;
            work_out(step, rounded + 16 * group);
            if (step == 1) send(group);
        } else if (part == parts - 1) {
            row = cta.problem.tokens;
            if (tile < 0) return;
            const int2 corner = cta.place(tile);
            row = corner.x + 16 * warp, column = corner.y;
            load(0);
        } else if (step == 2) {
            load(group + 1);
        }
    }
};

#endif

}  // namespace

bool hopper_supports(const Context& ctx, const DownSwigluBackward& args) {
    const int64_t tokens = args.dout.size(0), ffn = args.weight.size(1);
    return ctx.device == Device::cuda && ctx.gpu->runs_hopper_kernels() && ffn % 8 == 0 && fits_tiles(tokens, ffn) &&
           has_matrix_map(args.dout) && has_matrix_map(args.weight) && has_matrix_map(args.gate_up) &&
           has_matrix_map(args.dgate_up);
}

void hopper_down_swiglu_backward(const Context& ctx, const DownSwigluBackward& args) {
    using L = GatedLayout<GatedBackward>;
    const GatedBackward::Maps maps{.in = make_matrix_map(args.dout, L::rows),
                                   .weight = make_matrix_map(args.weight, L::depth),
                                   .gate = make_matrix_map(half_of(args.gate_up, 0), L::box_rows),
                                   .up = make_matrix_map(half_of(args.gate_up, 1), L::box_rows),
                                   .dgate = make_matrix_map(half_of(args.dgate_up, 0), L::box_rows),
                                   .dup = make_matrix_map(half_of(args.dgate_up, 1), L::box_rows)};
    launch_product<L>(ctx, "down_swiglu_backward", args.dout.size(0), args.weight.size(1), args.dout.size(1), {}, maps);
}

}  // namespace colonnade::cuda
