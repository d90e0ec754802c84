#include "train/model/offloaded_inputs.h"

#include "train/model/activations.h"

namespace colonnade {

OffloadedInputs OffloadedInputs::lay_out(Arena& host, const ModelConfig& config, const ActivationLayout& layout,
                                         HostTransfers* transfers) {
    OffloadedInputs inputs;
    const int64_t blocks = layout.offloaded_of(config.num_hidden_layers);
    if (blocks == 0) return inputs;
    inputs.transfers_ = transfers;
    inputs.first_ = layout.lowest_block();
    inputs.host_ =
        host.tensor("activations (host)", layout.dtype, {blocks, layout.tokens(), int64_t{config.hidden_size}});
    inputs.copies_.resize(static_cast<size_t>(blocks));
    return inputs;
}

int64_t OffloadedInputs::place_of(int64_t block) const {
    const int64_t place = block - first_;
    return place >= 0 && place < blocks() ? place : -1;
}

void OffloadedInputs::make_room(const Context& ctx, int64_t block) {
    await(ctx, block - 2);
}

void OffloadedInputs::send(int64_t block, const Tensor& in) {
    const int64_t place = place_of(block);
    if (place >= 0) copies_[place] = transfers_->to_host(host_.slice(0, place, place + 1), in);
}

// By now the input has arrived in host memory: make_room() of the block that took its buffer has awaited that.
void OffloadedInputs::fetch(int64_t block, const Tensor& in) {
    const int64_t place = place_of(block);
    if (place >= 0) copies_[place] = transfers_->to_device(in, host_.slice(0, place, place + 1));
}

void OffloadedInputs::await(const Context& ctx, int64_t block) {
    const int64_t place = place_of(block);
    if (place < 0) return;
    const PhaseTimer timer(ctx, "activation transfer");
    transfers_->await(copies_[place]);
}

}  // namespace colonnade
