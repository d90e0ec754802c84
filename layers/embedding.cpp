#include "layers/embedding.h"

#include <algorithm>
#include <utility>

#include "engine/device/device_memory.h"
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

TokenIndex TokenIndex::lay_out(Arena& arena, const std::string& group, int64_t tokens) {
    const auto i32 = [&](int64_t count) { return arena.tensor(group, DType::i32, {count}); };
    return {.order = i32(tokens), .begins = i32(tokens + 1), .ids = i32(tokens)};
}

void fill_token_index(const Context& ctx, TokenIndex& index, std::span<const int32_t> tokens) {
    HostTokenIndex host = make_token_index(tokens);
    index.distinct = std::ssize(host.ids);
    host.begins.resize(static_cast<size_t>(index.begins.numel()), static_cast<int32_t>(std::ssize(tokens)));
    put(ctx, index.order.slice(0, 0, std::ssize(host.order)), host.order);
    put(ctx, index.begins, host.begins);
    put(ctx, index.ids.slice(0, 0, std::ssize(host.ids)), host.ids);
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
