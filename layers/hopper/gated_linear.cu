// gate_up_swiglu_forward on Hopper: SwiGLU in the epilogue of the gate_up projection (gated_product.cuh).
//
// A tile is 128 columns of gate and the same 128 of up. The weight's rows for both halves are consecutive in a stage,
// so that one wgmma of 256 columns computes both, and gate and up of an element are in the same thread. The epilogue
// computes silu, stages the results in shared memory and stores them by TMA.

#include "layers/cuda_kernels.h"
#include "layers/hopper/gated_product.cuh"
#include "layers/swiglu.cuh"

namespace colonnade::cuda {
namespace {

struct GatedForward {
    struct Maps {
        CUtensorMap in, weight, gate, up, out;
    };
    static constexpr int columns = 128;
    /// Three parts per 64 columns: gate and up are stored, then `out` is computed, twice 32 columns.
    static constexpr int parts = 6;
    static constexpr bool weight_mn_major = false;
    /// The weight's rows of gate (half 0) or of up (half 1).
    template <typename Load>
    static __device__ void load_weight(const GatedProblem& problem, int half, int step, int column, const Load& load) {
        load(half * 128 * 64 * 2, 64 * step, half * problem.ffn + column);
    }
    template <typename Cta>
    struct Epilogue;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Writes boxes of the previous tile to the warp's two staging buffers in turn, and from there to memory. If gate is
/// sums[i], up of the same element is sums[i + 64].
template <typename Cta>
struct GatedForward::Epilogue {
    using L = typename Cta::L;
    const Cta& cta;
    const int warp;
    const uint32_t first_spot;
    // Byte offset of the chunk of row lane % 16 that this lane writes, among chunks 0 and 1: lane / 16 selects it.
    // Among chunks 2 i and 2 i + 1 the offset is this ^ 32 i.
    const uint32_t row_offset;
    int before = -1;  ///< the previous tile; -1: none
    int row = 0, column = 0;

    __device__ Epilogue(const Cta& cta_, int warp_)
        : cta(cta_),
          warp(warp_),
          first_spot(cta_.spots(warp_)),
          row_offset(lane_anew() % 16 * 128 + (lane_anew() / 16 ^ lane_anew() % 8) * 16) {}

    __device__ __forceinline__ void finish(float (&sums)[128], int tile) {
        if (cta.problem.bias) add_bias(sums, cta.place(tile).y + 2 * (lane_anew() % 4));
        before = tile;
    }
    __device__ __forceinline__ void take_spot() const {  // waits until the buffer's previous box has been stored
        if (lane_anew() == 0) wait_stores_read<1>();
        __syncwarp();
    }
    __device__ __forceinline__ void write(int spot, int i, const uint32_t* r) const {
        store_matrices((first_spot + spot * L::box_bytes + row_offset) ^ (32 * i), r[0], r[1], r[2], r[3]);
    }
    __device__ __forceinline__ void send(int spot, const CUtensorMap& map, int half) const {
        fence_async();
        __syncwarp();
        if (lane_anew() == 0) {
            if (before >= 0 && row < cta.problem.tokens && column + 64 * half < cta.problem.ffn)
                store_box(&map, first_spot + spot * L::box_bytes, column + 64 * half, row, evict_first);
            commit_stores();
        }
    }
    __device__ __forceinline__ void work_on(int part, const uint32_t (&rounded)[64], int) {
        const int half = part / 3, step = part % 3, gate = 16 * half, up = 32 + gate;
        if (part == 0 && before >= 0) {
            const int2 corner = cta.place(before);
            row = corner.x + 16 * warp, column = corner.y;
        }
        if (step == 0) {
            take_spot();
#pragma unroll
            for (int i = 0; i < 4; ++i) write(half, i, rounded + gate + 4 * i);
            send(half, cta.maps.gate, half);
            take_spot();
#pragma unroll
            for (int i = 0; i < 4; ++i) write(1 - half, i, rounded + up + 4 * i);
            send(1 - half, cta.maps.up, half);
            return;
        }
        if (step == 1) take_spot();
#pragma unroll
        for (int i = 2 * step - 2; i < 2 * step; ++i) {
            uint32_t out[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const uint32_t g = rounded[gate + 4 * i + k], u = rounded[up + 4 * i + k];
                out[k] = pack_bf16(swiglu(__uint_as_float(g << 16), __uint_as_float(u << 16)),
                                   swiglu(__uint_as_float(g & 0xffff0000u), __uint_as_float(u & 0xffff0000u)));
            }
            write(half, i, out);
        }
        if (step == 2) send(half, cta.maps.out, half);
    }
    /// `column`: the first column of this thread.
    __device__ __forceinline__ void add_bias(float (&sums)[128], int column) const {
#pragma unroll
        for (int j = 0; j < 16; ++j) {
            if (column + 8 * j >= cta.problem.ffn) break;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const __nv_bfloat16* const from = cta.problem.bias + half * cta.problem.ffn + column + 8 * j;
                const float2 bias = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    sums[64 * half + 4 * j + 2 * r] += bias.x;
                    sums[64 * half + 4 * j + 2 * r + 1] += bias.y;
                }
            }
        }
    }
};

#endif

}  // namespace

bool hopper_supports(const Context& ctx, const GateUpSwigluForward& args) {
    const int64_t tokens = args.out.size(0), ffn = args.out.size(1);
    return ctx.device == Device::cuda && ctx.gpu->runs_hopper_kernels() && ffn % 8 == 0 && fits_tiles(tokens, ffn) &&
           has_matrix_map(args.in) && has_matrix_map(args.weight) && has_matrix_map(args.gate_up) &&
           has_matrix_map(args.out) && reinterpret_cast<uintptr_t>(args.bias.data) % 4 == 0;
}

void hopper_gate_up_swiglu_forward(const Context& ctx, const GateUpSwigluForward& args) {
    using L = GatedLayout<GatedForward>;
    const GatedForward::Maps maps{.in = make_matrix_map(args.in, L::rows),
                                  .weight = make_matrix_map(args.weight, GatedForward::columns),
                                  .gate = make_matrix_map(half_of(args.gate_up, 0), L::box_rows),
                                  .up = make_matrix_map(half_of(args.gate_up, 1), L::box_rows),
                                  .out = make_matrix_map(args.out, L::box_rows)};
    launch_product<L>(ctx, "gate_up_swiglu_forward", args.out.size(0), args.out.size(1), args.in.size(1), args.bias,
                      maps);
}

}  // namespace colonnade::cuda
