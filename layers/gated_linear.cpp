#include "layers/gated_linear.h"

#include "layers/cuda_kernels.h"
#include "layers/linear.h"
#include "layers/shape_check.h"
#include "layers/swiglu.h"

namespace colonnade {

void gate_up_swiglu_forward(const Context& ctx, const GateUpSwigluForward& args) {
    const ShapeCheck check(ctx, "gate_up_swiglu_forward", args.weight.dtype);
    const int64_t tokens = args.out.size(0), ffn = args.out.size(1), hidden = args.weight.size(1);
    check("out", args.out, {tokens, ffn});
    check("gate_up", args.gate_up, {tokens, 2 * ffn});
    check("in", args.in, {tokens, hidden});
    if (args.fp8.matrices.empty()) check("weight", args.weight, {2 * ffn, hidden});
    if (!args.bias.empty()) check("bias", args.bias, {2 * ffn});
    if (!args.fp8 && cuda::hopper_supports(ctx, args)) {
        const PhaseTimer timer(ctx, "gemm");
        return cuda::hopper_gate_up_swiglu_forward(ctx, args);
    }
    linear_forward(ctx,
                   {.out = args.gate_up, .in = args.in, .weight = args.weight, .bias = args.bias, .fp8 = args.fp8});
    swiglu_forward(ctx, {.out = args.out, .gate_up = args.gate_up});
}

void down_swiglu_backward(const Context& ctx, const DownSwigluBackward& args) {
    const ShapeCheck check(ctx, "down_swiglu_backward", args.weight.dtype);
    const int64_t tokens = args.dout.size(0), hidden = args.weight.size(0), ffn = args.weight.size(1);
    if (args.fp8.matrices.empty()) check("weight", args.weight, {hidden, ffn});
    check("dout", args.dout, {tokens, hidden});
    check("dswiglu", args.dswiglu, {tokens, ffn});
    check("gate_up", args.gate_up, {tokens, 2 * ffn});
    check("dgate_up", args.dgate_up, {tokens, 2 * ffn});
    if (!args.fp8 && cuda::hopper_supports(ctx, args)) {
        const PhaseTimer timer(ctx, "gemm");
        return cuda::hopper_down_swiglu_backward(ctx, args);
    }
    linear_backward(ctx, {.din = args.dswiglu, .dout = args.dout, .weight = args.weight, .fp8 = args.fp8});
    swiglu_backward(ctx, {.dgate_up = args.dgate_up, .dout = args.dswiglu, .gate_up = args.gate_up});
}

}  // namespace colonnade
