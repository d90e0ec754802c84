// The adapters of the decoder (train/model/lora.h), beside the linear layers of train/model/transformer.cpp.

#include "train/model/transformer.h"

namespace colonnade {

namespace {

/// Room for [tokens, width] in a flat buffer; empty where that is.
Tensor rows_in(const Tensor& room, int64_t tokens, int64_t width) {
    return room.empty() ? room : room.slice(0, 0, tokens * width).view({tokens, width});
}

DropoutMask mask_of(const TransformerInput& input, int64_t layer, Product product) {
    DropoutMask mask = input.dropout;
    mask.stream |= static_cast<uint64_t>(layer) << 2 | static_cast<uint64_t>(product);
    return mask;
}

}  // namespace

bool Transformer::adapted(const TransformerInput& input, int64_t layer, Product product) const {
    return input.adapters &&
           !weights_.blocks[static_cast<size_t>(layer)].adapters[static_cast<size_t>(product)].empty();
}

void Transformer::adapt(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                        Product product, const Tensor& out, const Tensor& in) const {
    if (!adapted(input, layer, product)) return;
    const auto l = static_cast<size_t>(layer), p = static_cast<size_t>(product);
    low_rank_forward(ctx, {.out = out,
                           .h = acts.blocks[l].h[p],
                           .in = in,
                           .weights = weights_.blocks[l].adapters[p],
                           .mask = mask_of(input, layer, product),
                           .dropped = rows_in(acts.dropped, in.size(0), in.size(1))});
}

void Transformer::adapt_backward(const Context& ctx, const TransformerInput& input, Activations& acts, int64_t layer,
                                 Product product, const BlockParameters& gradients,
                                 const AdapterGradients& args) const {
    const auto l = static_cast<size_t>(layer), p = static_cast<size_t>(product);
    const LowRank& pairs = weights_.blocks[l].adapters[p];
    if (pairs.empty()) return;
    low_rank_backward(ctx, {.din = args.din,
                            .gradients = gradients.adapters[p],
                            .dh = rows_in(acts.dh, args.in.size(0), pairs.a.size(0)),
                            .dout = args.dout,
                            .h = acts.blocks[l].h[p],
                            .in = args.in,
                            .weights = pairs,
                            .mask = mask_of(input, layer, product),
                            .dropped = rows_in(acts.dropped, args.in.size(0), args.in.size(1))});
}

}  // namespace colonnade
