#include "layers/gather.h"

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

std::span<const int32_t> checked_rows(const char* op, const Tensor& indices, int64_t tokens) {
    const auto rows = elements<const int32_t>(indices);
    for (size_t i = 0; i < rows.size(); ++i)
        require(rows[i] >= 0 && rows[i] < tokens, "{}: rows[{}] is {}, outside [0, {})", op, i, rows[i], tokens);
    return rows;
}

}  // namespace

void gather_rows(const Context& ctx, const GatherRows& args) {
    const ShapeCheck check(ctx, "gather_rows", args.in.dtype);
    const int64_t tokens = args.in.size(0), hidden = args.in.size(1);
    check("in", args.in, {tokens, hidden});
    check("rows", args.rows, DType::i32, {args.rows.size(0)});
    check("out", args.out, {args.rows.size(0), hidden});
    const PhaseTimer timer(ctx, "gather");
    if (ctx.device == Device::cuda) return cuda::gather_rows(ctx, args);
    const auto rows = checked_rows(check.op(), args.rows, tokens);
    dispatch_float(args.in.dtype, [&]<typename T>() {
        gather<T>({args.out.as<T>(), args.out.stride[0]}, {args.in.as<T>(), args.in.stride[0]}, rows, hidden);
    });
}

void scatter_rows(const Context& ctx, const ScatterRows& args) {
    const ShapeCheck check(ctx, "scatter_rows", args.din.dtype);
    const int64_t tokens = args.din.size(0), hidden = args.din.size(1);
    check("din", args.din, {tokens, hidden});
    check("rows", args.rows, DType::i32, {args.rows.size(0)});
    check("dout", args.dout, {args.rows.size(0), hidden});
    const PhaseTimer timer(ctx, "gather");
    if (ctx.device == Device::cuda) return cuda::scatter_rows(ctx, args);
    const auto rows = checked_rows(check.op(), args.rows, tokens);
    dispatch_float(args.din.dtype, [&]<typename T>() {
        const Rows<T> din{args.din.as<T>(), args.din.stride[0]};
#pragma omp parallel for schedule(static)
        for (int64_t t = 0; t < tokens; ++t) std::fill_n(din[t], hidden, T{0});
        scatter_add<T>(din, {args.dout.as<T>(), args.dout.stride[0]}, rows, hidden);
    });
}

}  // namespace colonnade
