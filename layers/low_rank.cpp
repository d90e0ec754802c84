#include "layers/low_rank.h"

#include "engine/device/gemm.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

int64_t rank_of(const LowRank& w) {
    return w.slices.front().b.size(1);
}

void check_weights(const ShapeCheck& check, const LowRank& w, DType dtype, int64_t in_features, int64_t out_features) {
    const int64_t rank = rank_of(w), count = std::ssize(w.slices);
    check("a", w.a, dtype, {count * rank, in_features});
    for (const LowRank::Slice& slice : w.slices) {
        check("b", slice.b, dtype, {slice.b.size(0), rank});
        require(slice.begin >= 0 && slice.begin + slice.b.size(0) <= out_features,
                "{}: a slice of columns [{}, {}) of {}", check.op(), slice.begin, slice.begin + slice.b.size(0),
                out_features);
    }
}

Tensor columns(const Tensor& rows, const LowRank::Slice& slice) {
    return rows.slice(1, slice.begin, slice.begin + slice.b.size(0));
}

/// The part of h or dh that belongs to slice i.
Tensor part(const Tensor& h, size_t i, int64_t rank) {
    return h.slice(1, static_cast<int64_t>(i) * rank, (static_cast<int64_t>(i) + 1) * rank);
}

/// The input of A: `in` after dropout.
Tensor dropped_input(const Context& ctx, const Tensor& in, const DropoutMask& mask, const Tensor& dropped) {
    if (mask.p == 0) return in;
    dropout(ctx, {.out = dropped, .in = in, .mask = mask});
    return dropped;
}

}  // namespace

void low_rank_forward(const Context& ctx, const LowRankForward& args) {
    const LowRank& w = args.weights;
    const ShapeCheck check(ctx, "low_rank_forward", w.a.dtype);
    const int64_t tokens = args.in.size(0), out_features = args.out.size(1), rank = rank_of(w);
    check("in", args.in, {tokens, args.in.size(1)});
    check("out", args.out, {tokens, out_features});
    check_weights(check, w, w.a.dtype, args.in.size(1), out_features);
    check("h", args.h, {tokens, w.a.size(0)});
    const Tensor in = dropped_input(ctx, args.in, args.mask, args.dropped);
    gemm(ctx, {.c = args.h, .a = in, .b = w.a, .transpose_b = true});
    for (size_t i = 0; i < w.slices.size(); ++i)
        gemm(ctx, {.c = columns(args.out, w.slices[i]),
                   .a = part(args.h, i, rank),
                   .b = w.slices[i].b,
                   .transpose_b = true,
                   .alpha = w.scale,
                   .beta = 1});
}

void low_rank_backward(const Context& ctx, const LowRankBackward& args) {
    const LowRank &w = args.weights, &g = args.gradients;
    const ShapeCheck check(ctx, "low_rank_backward", w.a.dtype);
    const int64_t tokens = args.in.size(0), in_features = args.in.size(1), out_features = args.dout.size(1);
    const int64_t rank = rank_of(w);
    check("dout", args.dout, {tokens, out_features});
    check("in", args.in, {tokens, in_features});
    if (!args.din.empty()) check("din", args.din, {tokens, in_features});
    check_weights(check, w, w.a.dtype, in_features, out_features);
    require(g.slices.size() == w.slices.size(), "low_rank_backward: {} slices, {} gradients", w.slices.size(),
            g.slices.size());
    check_weights(check, g, sum_dtype(w.a.dtype), in_features, out_features);
    check("h", args.h, {tokens, w.a.size(0)});
    check("dh", args.dh, {tokens, w.a.size(0)});
    for (size_t i = 0; i < w.slices.size(); ++i) {
        const Tensor dout = columns(args.dout, w.slices[i]);
        gemm(ctx, {.c = part(args.dh, i, rank), .a = dout, .b = w.slices[i].b, .alpha = w.scale});
        gemm(ctx, {.c = g.slices[i].b,
                   .a = dout,
                   .b = part(args.h, i, rank),
                   .transpose_a = true,
                   .alpha = w.scale,
                   .beta = 1});
    }
    const Tensor in = dropped_input(ctx, args.in, args.mask, args.dropped);
    gemm(ctx, {.c = g.a, .a = args.dh, .b = in, .transpose_a = true, .beta = 1});
    if (args.din.empty()) return;
    if (args.mask.p == 0) return gemm(ctx, {.c = args.din, .a = args.dh, .b = w.a, .beta = 1});
    gemm(ctx, {.c = args.dropped, .a = args.dh, .b = w.a});
    dropout(ctx, {.out = args.din, .mode = Grad::accumulate, .in = args.dropped, .mask = args.mask});
}

}  // namespace colonnade
