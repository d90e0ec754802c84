#pragma once
// HostTransfers: copies between a GPU's memory and the host's that run beside the work of the Gpu's stream, each direction
// on a stream of its own. Host memory can then stand in for memory of the device:
//
//     Ticket sent = transfers.to_host(host, device);      after all work enqueued so far
//     transfers.await(sent);                              work enqueued from now on may overwrite `device`
//     Ticket back = transfers.to_device(device, host);
//     transfers.await(back);                              work enqueued from now on reads `device`
//
// Copies of one direction happen in the order of their calls. The host memory should be pinned (Arena::in_host_memory):
// otherwise a copy blocks the host. On the CPU a copy happens at once, between two places of host memory.

#include <memory>

#include "engine/device/gpu.h"

namespace colonnade {

/// A copy under way; by default none.
class TransferTicket {
    friend class HostTransfers;
    int64_t number_ = 0;  ///< of its direction, from 1 on; 0: none
    bool to_host_ = false;
};

class HostTransfers {
  public:
    using Ticket = TransferTicket;

    /// `gpu` must outlive this object; null: the CPU.
    explicit HostTransfers(Gpu* gpu);
    ~HostTransfers();  ///< waits for all copies
    HostTransfers(const HostTransfers&) = delete;
    HostTransfers& operator=(const HostTransfers&) = delete;

    /// Enqueues a copy between contiguous tensors of the same number of bytes. It begins after all work that the Gpu's
    /// stream has been given so far, and after the copy `after`.
    Ticket to_host(const Tensor& to, const Tensor& from, Ticket after = {});
    Ticket to_device(const Tensor& to, const Tensor& from, Ticket after = {});
    /// Work that the Gpu's stream is given from now on comes after this copy.
    void await(Ticket ticket);

  private:
    struct Direction;
    struct State;
    Ticket enqueue(bool to_host, const Tensor& to, const Tensor& from, Ticket after);
    std::unique_ptr<State> state_;  ///< null: the CPU
};

/// Copies between contiguous tensors in host memory, by all threads.
void copy_host_memory(const Tensor& to, const Tensor& from);

}  // namespace colonnade
