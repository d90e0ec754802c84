#include "layers/embedding.h"

#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

void check_tokens(std::span<const int32_t> tokens, int64_t vocab) {
    for (size_t t = 0; t < tokens.size(); ++t)
        if (tokens[t] < 0 || tokens[t] >= vocab)
            fail(Exit::data, "position {}: token {} is outside the vocabulary [0, {})", t, tokens[t], vocab);
}

}  // namespace

void embedding_forward(const Context& ctx, const EmbeddingForward& args) {
    const ShapeCheck check(ctx, "embedding_forward", args.weight.dtype);
    const int64_t vocab = args.weight.size(0), hidden = args.weight.size(1);
    check("weight", args.weight, {vocab, hidden});
    check("out", args.out, {std::ssize(args.tokens), hidden});
    check_tokens(args.tokens, vocab);
    const PhaseTimer timer(ctx, "embedding");
    dispatch_float(args.weight.dtype, [&]<typename T>() {
        gather<T>({args.out.as<T>(), args.out.stride[0]}, {args.weight.as<T>(), args.weight.stride[0]}, args.tokens,
                  hidden);
    });
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& args) {
    const ShapeCheck check(ctx, "embedding_backward", args.dweight.dtype);
    const int64_t vocab = args.dweight.size(0), hidden = args.dweight.size(1);
    check("dweight", args.dweight, {vocab, hidden});
    check("dout", args.dout, {std::ssize(args.tokens), hidden});
    check_tokens(args.tokens, vocab);
    const PhaseTimer timer(ctx, "embedding");
    dispatch_float(args.dweight.dtype, [&]<typename T>() {
        scatter_add<T>({args.dweight.as<T>(), args.dweight.stride[0]}, {args.dout.as<T>(), args.dout.stride[0]},
                       args.tokens, hidden);
    });
}

}  // namespace colonnade
