#include "train/step/hosted_blocks.h"

#include <algorithm>

#include "engine/device/device_memory.h"

namespace colonnade {

std::vector<int64_t> spread_blocks(int64_t count, int64_t blocks) {
    count = std::clamp<int64_t>(count, 0, blocks);
    std::vector<int64_t> chosen;
    for (int64_t block = 0; block < blocks; ++block)
        if ((block + 1) * count / blocks > block * count / blocks) chosen.push_back(block);
    return chosen;
}

std::vector<Range> ranges_of_blocks(const std::vector<LayerRange>& layers, const std::vector<int64_t>& blocks) {
    std::vector<Range> ranges;
    for (const LayerRange& layer : layers)
        if (std::ranges::binary_search(blocks, layer.layer)) ranges.push_back({layer.begin, layer.end});
    return ranges;
}

HostedBlocks::Slots HostedBlocks::Slots::lay_out(Arena& device, const std::vector<int64_t>& blocks, const Array& array,
                                                 size_t count) {
    Slots s{.placed = array.placed, .ranges = std::vector<Range>(blocks.size())};
    if (!array.placed.has_hosted()) return s;
    for (const LayerRange& layer : array.layers) {
        const auto found = std::ranges::lower_bound(blocks, layer.layer);
        if (found != blocks.end() && *found == layer.layer)
            s.ranges[static_cast<size_t>(found - blocks.begin())] = {layer.begin, layer.end};
    }
    const DType dtype = array.placed.parts().front().values.dtype;
    for (size_t i = 0; i < std::min(count, blocks.size()); ++i)
        s.slots.push_back(device.tensor("slots of blocks", dtype, {array.placed.largest_hosted()}));
    return s;
}

Tensor HostedBlocks::Slots::on_device(int64_t place) const {
    const auto i = static_cast<size_t>(place);
    return slots[i % slots.size()].slice(0, 0, ranges[i].size());
}

Tensor HostedBlocks::Slots::on_host(int64_t place) const {
    const Range& range = ranges[static_cast<size_t>(place)];
    return placed.slice(range.begin, range.end);
}

Tensor HostedBlocks::Slots::find(int64_t begin, int64_t end) const {
    for (size_t i = 0; i < ranges.size(); ++i)
        if (ranges[i].begin <= begin && end <= ranges[i].end && begin < ranges[i].end)
            return on_device(static_cast<int64_t>(i)).slice(0, begin - ranges[i].begin, end - ranges[i].begin);
    fail(Exit::internal, "elements {} to {} are in no block of host memory", begin, end);
}

HostedBlocks HostedBlocks::lay_out(Arena& device, const std::vector<int64_t>& blocks, const std::vector<Array>& weights,
                                   const Array& gradients) {
    HostedBlocks hosted;
    hosted.blocks_ = blocks;
    for (const Array& array : weights) hosted.weights_.push_back(Slots::lay_out(device, blocks, array, weight_slots));
    hosted.gradients_ = Slots::lay_out(device, blocks, gradients, gradient_slots);
    return hosted;
}

int64_t HostedBlocks::place_of(int64_t layer) const {
    const auto found = std::ranges::lower_bound(blocks_, layer);
    return found != blocks_.end() && *found == layer ? found - blocks_.begin() : -1;
}

Range HostedBlocks::gradients_of(int64_t layer) const {
    const int64_t place = place_of(layer);
    return place >= 0 ? gradients_.ranges[static_cast<size_t>(place)] : Range();
}

void HostedBlocks::fetch_weights(int64_t place) {
    if (place < 0 || place >= count()) return;
    const size_t slot = static_cast<size_t>(place) % weight_slots;
    if (weights_of_slot_[slot] == place) return;
    weights_of_slot_[slot] = place;
    for (const Slots& array : weights_)
        if (array.has(place))
            weights_arrive_[slot] = transfers_->to_device(array.on_device(place), array.on_host(place), changed_);
}

// Copies to the host happen in their order: when the gradients that used the slot have left, so have those of this block.
void HostedBlocks::fetch_gradients(int64_t place) {
    if (place < 0 || !gradients_.has(place)) return;
    const size_t slot = static_cast<size_t>(place) % gradient_slots;
    if (gradients_of_slot_[slot] == place) return;
    gradients_of_slot_[slot] = place;
    gradients_arrive_[slot] =
        transfers_->to_device(gradients_.on_device(place), gradients_.on_host(place), gradients_leave_[slot]);
}

void HostedBlocks::before_forward(const Context& ctx, int64_t layer) {
    if (layer == embedding_layer)
        for (size_t slot = 0; slot < weight_slots; ++slot) fetch_weights(static_cast<int64_t>(slot));
    const int64_t place = place_of(layer);
    if (place < 0) return;
    fetch_weights(place + 1);  // in the slot of the block before
    if (adds_ && place + 1 == count()) fetch_gradients(place);
    const PhaseTimer timer(ctx, "block transfer");
    transfers_->await(weights_arrive_[static_cast<size_t>(place) % weight_slots]);
}

void HostedBlocks::before_backward(const Context& ctx, int64_t layer) {
    const int64_t place = place_of(layer);
    if (place < 0) return;
    fetch_weights(place);  // there already, unless others came in between
    fetch_weights(place - 1);
    const size_t slot = static_cast<size_t>(place) % gradient_slots;
    if (adds_) {
        fetch_gradients(place);
        fetch_gradients(place - 1);
    }
    {
        const PhaseTimer timer(ctx, "block transfer");
        transfers_->await(weights_arrive_[static_cast<size_t>(place) % weight_slots]);
        transfers_->await(adds_ ? gradients_arrive_[slot] : gradients_leave_[slot]);
    }
    if (!adds_ && gradients_.has(place)) clear(ctx, gradients_.on_device(place));
}

void HostedBlocks::after_backward(int64_t layer) {
    const int64_t place = place_of(layer);
    if (place < 0 || !gradients_.has(place)) return;
    const size_t slot = static_cast<size_t>(place) % gradient_slots;
    sent_ = gradients_leave_[slot] = transfers_->to_host(gradients_.on_host(place), gradients_.on_device(place));
    gradients_of_slot_[slot] = -1;
}

void HostedBlocks::weights_changed(TransferTicket copy) {
    weights_of_slot_.fill(-1);
    changed_ = copy;
}

}  // namespace colonnade
