#include "layers/embedding.h"

#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

std::span<const int32_t> checked_tokens(const Tensor& indices, int64_t vocab) {
    const auto tokens = elements<const int32_t>(indices);
    for (size_t t = 0; t < tokens.size(); ++t)
        if (tokens[t] < 0 || tokens[t] >= vocab)
            fail(Exit::data, "position {}: token {} is outside the vocabulary [0, {})", t, tokens[t], vocab);
    return tokens;
}

void widen(const EmbeddingForward& args, std::span<const int32_t> tokens) {
    const int64_t hidden = args.weight.size(1);
    for (size_t t = 0; t < tokens.size(); ++t) {
        float* const to = args.out.as<float>() + static_cast<int64_t>(t) * args.out.stride[0];
        const bf16* const from = args.weight.as<bf16>() + tokens[t] * args.weight.stride[0];
        for (int64_t j = 0; j < hidden; ++j) to[j] = float_from_bf16(from[j].bits);
    }
}

}  // namespace

void embedding_forward(const Context& ctx, const EmbeddingForward& args) {
    const ShapeCheck check(ctx, "embedding_forward", args.out.dtype);
    const int64_t vocab = args.weight.size(0), hidden = args.weight.size(1);
    const bool widened = args.weight.dtype == DType::bf16 && args.out.dtype == DType::f32;
    check("weight", args.weight, widened ? DType::bf16 : args.out.dtype, {vocab, hidden});
    check("tokens", args.tokens, DType::i32, {args.tokens.size(0)});
    check("out", args.out, {args.tokens.size(0), hidden});
    const PhaseTimer timer(ctx, "embedding");
    if (ctx.device == Device::cuda)
        return cuda::gather_rows(ctx, {.out = args.out, .in = args.weight, .rows = args.tokens});
    const auto tokens = checked_tokens(args.tokens, vocab);
    if (widened) return widen(args, tokens);
    dispatch_float(args.weight.dtype, [&]<typename T>() {
        gather<T>({args.out.as<T>(), args.out.stride[0]}, {args.weight.as<T>(), args.weight.stride[0]}, tokens, hidden);
    });
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& args) {
    const ShapeCheck check(ctx, "embedding_backward", args.dout.dtype);
    const TokenIndex& index = args.index;
    const int64_t vocab = args.dweight.size(0), hidden = args.dweight.size(1), tokens = args.dout.size(0);
    check("dweight", args.dweight, sum_dtype(args.dout.dtype), {vocab, hidden});
    check("dout", args.dout, {tokens, hidden});
    check("index.order", index.order, DType::i32, {tokens});
    check("index.begins", index.begins, DType::i32, {tokens + 1});
    check("index.ids", index.ids, DType::i32, {tokens});
    const PhaseTimer timer(ctx, "embedding");
    if (ctx.device == Device::cuda) return cuda::embedding_backward(ctx, args);
    const int32_t *order = index.order.as<int32_t>(), *begins = index.begins.as<int32_t>(),
                  *ids = index.ids.as<int32_t>();
    dispatch_float(args.dout.dtype, [&]<typename T>() {
        const Rows<T> dweight{args.dweight.as<T>(), args.dweight.stride[0]};
        const Rows<const T> dout{args.dout.as<T>(), args.dout.stride[0]};
#pragma omp parallel for schedule(dynamic, 16)
        for (int64_t i = 0; i < index.distinct; ++i)
            for (int32_t at = begins[i]; at < begins[i + 1]; ++at) {
                T* const to = dweight[ids[i]];
                const T* const from = dout[order[at]];
#pragma omp simd
                for (int64_t j = 0; j < hidden; ++j) to[j] += from[j];
            }
    });
}

}  // namespace colonnade
