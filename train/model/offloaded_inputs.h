#pragma once
// OffloadedInputs: inputs of blocks that are in host memory between forward and backward: [tokens, hidden] of each block,
// the largest thing that is kept of a block whose activations are recomputed.
//
// These blocks, and the two after them, take turns in two buffers of the device: block l in that of block l - 2. Forward
// sends an input while its block and the next one compute. Backward gets it back while the block above it computes:
//
//     forward, l = 0, 1, ...                        backward, l = ..., 1, 0
//         make_room(l)      block l - 2 has left        await(l)           its input is back
//         what writes the input of block l              block l
//         send(l, in)                                   fetch(l - 2, in)   into the buffer that block l leaves
//         block l
//
// On the CPU both memories are the host's.

#include <vector>

#include "engine/device/arena.h"
#include "engine/device/host_transfers.h"
#include "train/model/model_config.h"

namespace colonnade {

struct ActivationLayout;

class OffloadedInputs {
  public:
    /// No block has one: nothing happens in any call.
    OffloadedInputs() = default;
    /// Lays out what ActivationLayout::offloaded says, in the group "activations (host)". `transfers` must outlive the
    /// result; null if `host` is only planning.
    static OffloadedInputs lay_out(Arena& host, const ModelConfig& config, const ActivationLayout& layout,
                                   HostTransfers* transfers);

    int64_t blocks() const { return static_cast<int64_t>(copies_.size()); }

    void make_room(const Context& ctx, int64_t block);
    void send(int64_t block, const Tensor& in);
    void fetch(int64_t block, const Tensor& in);
    void await(const Context& ctx, int64_t block);

  private:
    /// Place of a block among those that have one; -1: it has none.
    int64_t place_of(int64_t block) const;

    HostTransfers* transfers_ = nullptr;
    int64_t first_ = 0;                   ///< block
    Tensor host_;                         ///< [blocks, tokens, hidden]
    std::vector<TransferTicket> copies_;  ///< the last one of each block
};

}  // namespace colonnade
