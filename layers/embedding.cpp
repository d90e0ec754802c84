#include "layers/embedding.h"

#include <algorithm>
#include <utility>

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

}  // namespace

void embedding_forward(const Context& ctx, const EmbeddingForward& args) {
    const ShapeCheck check(ctx, "embedding_forward", args.weight.dtype);
    const int64_t vocab = args.weight.size(0), hidden = args.weight.size(1);
    check("weight", args.weight, {vocab, hidden});
    check("tokens", args.tokens, DType::i32, {args.tokens.size(0)});
    check("out", args.out, {args.tokens.size(0), hidden});
    const PhaseTimer timer(ctx, "embedding");
    if (ctx.device == Device::cuda)
        return cuda::gather_rows(ctx, {.out = args.out, .in = args.weight, .rows = args.tokens});
    const auto tokens = checked_tokens(args.tokens, vocab);
    dispatch_float(args.weight.dtype, [&]<typename T>() {
        gather<T>({args.out.as<T>(), args.out.stride[0]}, {args.weight.as<T>(), args.weight.stride[0]}, tokens, hidden);
    });
}

HostTokenIndex make_token_index(std::span<const int32_t> tokens) {
    HostTokenIndex index;
    if (tokens.empty()) return index;
    // A counting sort: `place` counts each token, then says where its next position goes.
    std::vector<int32_t> place(static_cast<size_t>(*std::ranges::max_element(tokens)) + 1);
    for (const int32_t token : tokens) ++place[static_cast<size_t>(token)];
    int32_t begin = 0;
    for (size_t id = 0; id < place.size(); ++id) {
        if (place[id] == 0) continue;
        index.ids.push_back(static_cast<int32_t>(id));
        index.begins.push_back(begin);
        begin += std::exchange(place[id], begin);
    }
    index.begins.push_back(begin);
    index.order.resize(tokens.size());
    for (size_t t = 0; t < tokens.size(); ++t)
        index.order[static_cast<size_t>(place[static_cast<size_t>(tokens[t])]++)] = static_cast<int32_t>(t);
    return index;
}

void upload_token_index(const Context& ctx, TokenIndex& index, std::span<const int32_t> tokens) {
    const HostTokenIndex host = make_token_index(tokens);
    index.distinct = std::ssize(host.ids);
    const auto upload = [&](const Tensor& to, const std::vector<int32_t>& values) {
        if (!values.empty()) ctx.gpu->upload(to.slice(0, 0, std::ssize(values)), values.data());
    };
    upload(index.order, host.order);
    upload(index.begins, host.begins);
    upload(index.ids, host.ids);
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& args) {
    const ShapeCheck check(ctx, "embedding_backward", args.dout.dtype);
    const int64_t vocab = args.dweight.size(0), hidden = args.dweight.size(1), tokens = args.tokens.size(0);
    check("dweight", args.dweight, sum_dtype(args.dout.dtype), {vocab, hidden});
    check("tokens", args.tokens, DType::i32, {tokens});
    check("dout", args.dout, {tokens, hidden});
    const PhaseTimer timer(ctx, "embedding");
    if (ctx.device == Device::cuda) {
        const TokenIndex& index = args.index;
        check("index.order", index.order, DType::i32, {std::max(index.order.size(0), tokens)});
        check("index.begins", index.begins, DType::i32, {std::max(index.begins.size(0), index.distinct + 1)});
        check("index.ids", index.ids, DType::i32, {std::max(index.ids.size(0), index.distinct)});
        return cuda::embedding_backward(ctx, args);
    }
    const auto ids = checked_tokens(args.tokens, vocab);
    dispatch_float(args.dout.dtype, [&]<typename T>() {
        scatter_add<T>({args.dweight.as<T>(), args.dweight.stride[0]}, {args.dout.as<T>(), args.dout.stride[0]}, ids,
                       hidden);
    });
}

}  // namespace colonnade
