#pragma once
// HostedBlocks: blocks whose weights, and the gradients of these, are in host memory, so that this bounds the size of a
// model. On the device blocks take turns in a few slots: the weights of one arrive while the one before it computes, in
// forward as well as in backward. Gradients of a step stay in host memory between its micro-steps: they arrive before the
// backward of their block, which adds to them, and leave after it.
//
// Bytes that move to the device for a parameter: 2 in forward (bf16; fewer of a base in fewer bits), and in backward 2 and, after the first micro-step, 4 of
// its gradient; 4 leave at the same time. With T tokens in a micro-step forward takes 2 T floating-point operations for a
// parameter, backward 4 T. So the copies are hidden if
//
//     T  >  6 / 4 * (operations/s of the model) / (bytes/s to the device)
//
// which is 12,000 tokens for 450 TFLOP/s and 55 GB/s.

#include <array>
#include <vector>

#include "engine/device/host_transfers.h"
#include "train/model/parameters.h"
#include "train/step/placed_array.h"

namespace colonnade {

/// `count` of `blocks` blocks, spread evenly, so that others compute between them while they arrive; ascending.
std::vector<int64_t> spread_blocks(int64_t count, int64_t blocks);
/// The elements of these blocks in a flat array with these layers, in its order; without blocks that have none.
std::vector<Range> ranges_of_blocks(const std::vector<LayerRange>& layers, const std::vector<int64_t>& blocks);

class HostedBlocks {
  public:
    /// A flat array, and what of it each layer has.
    struct Array {
        std::vector<LayerRange> layers;
        const PlacedArray& placed;
    };

    /// No block: nothing happens in any call.
    HostedBlocks() = default;
    /// Lays the slots out on the device. `weights`: arrays that are only read; `gradients`: empty if there are none.
    static HostedBlocks lay_out(Arena& device, const std::vector<int64_t>& blocks, const std::vector<Array>& weights,
                                const Array& gradients);
    /// `transfers` must outlive this object.
    void use(HostTransfers* transfers) { transfers_ = transfers; }

    bool has(int64_t layer) const { return place_of(layer) >= 0; }
    /// Elements [begin, end) of the flat array with this index in `weights`, or of the gradients, in the slot in which
    /// their block has them.
    Tensor weights_in_slot(size_t array, int64_t begin, int64_t end) const { return weights_[array].find(begin, end); }
    Tensor gradients_in_slot(int64_t begin, int64_t end) const { return gradients_.find(begin, end); }
    /// The gradients of a block in their flat array; empty if it has none here.
    Range gradients_of(int64_t layer) const;

    /// A pass begins. `adds`: its backward adds to gradients that are there; otherwise it begins at zero.
    void begin(bool adds) { adds_ = adds; }
    // These are called with every layer, as the hooks of TransformerInput are.
    void before_forward(const Context& ctx, int64_t layer);
    void before_backward(const Context& ctx, int64_t layer);
    void after_backward(int64_t layer);

    /// The copy after which all gradients are in host memory.
    TransferTicket gradients_sent() const { return sent_; }
    /// Weights in host memory are new once this copy has happened.
    void weights_changed(TransferTicket copy = {});

  private:
    /// The slots of an array: those of block blocks_[i] are in slot i modulo their number.
    struct Slots {
        PlacedArray placed;
        std::vector<Range> ranges;  ///< of each block
        std::vector<Tensor> slots{};

        static Slots lay_out(Arena& device, const std::vector<int64_t>& blocks, const Array& array, size_t count);
        bool has(int64_t place) const { return ranges[static_cast<size_t>(place)].size() > 0; }
        Tensor on_device(int64_t place) const;
        Tensor on_host(int64_t place) const;
        Tensor find(int64_t begin, int64_t end) const;
    };
    static constexpr size_t weight_slots = 2;    ///< one computes, one arrives
    static constexpr size_t gradient_slots = 3;  ///< and one leaves

    int64_t count() const { return std::ssize(blocks_); }
    int64_t place_of(int64_t layer) const;
    void fetch_weights(int64_t place);
    void fetch_gradients(int64_t place);

    std::vector<int64_t> blocks_;
    std::vector<Slots> weights_;
    Slots gradients_;
    HostTransfers* transfers_ = nullptr;
    bool adds_ = false;
    std::array<int64_t, weight_slots> weights_of_slot_{-1, -1};  ///< the place whose weights are there, or arrive
    std::array<int64_t, gradient_slots> gradients_of_slot_{-1, -1, -1};
    std::array<TransferTicket, weight_slots> weights_arrive_{};
    std::array<TransferTicket, gradient_slots> gradients_arrive_{}, gradients_leave_{};
    TransferTicket sent_{}, changed_{};
};

}  // namespace colonnade
