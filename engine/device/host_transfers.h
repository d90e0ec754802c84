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
// otherwise a copy blocks the host. On the CPU a copy, between two places of host memory, happens as late as it may: when
// somebody awaits it, or a copy that comes after it.

#include <array>
#include <deque>
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

    /// What went one way.
    struct Traffic {
        double bytes = 0, seconds = 0;  ///< seconds: of the copies, one after the other
    };
    /// From now on copies of a GPU are timed.
    void start_timing();
    /// Those since start_timing(), to the device and to the host; waits for them, and ends the timing.
    std::array<Traffic, 2> stop_timing();

  private:
    struct Direction;
    struct State;
    /// A copy of the CPU that is still to be made.
    struct Late {
        Tensor to, from;
        Ticket after;
    };
    struct LateCopies {
        std::deque<Late> copies;
        int64_t made = 0;
    };
    Ticket enqueue(bool to_host, const Tensor& to, const Tensor& from, Ticket after);
    Ticket enqueue_late(bool to_host, const Tensor& to, const Tensor& from, Ticket after);
    /// Makes the copies of a ticket's direction up to it.
    void make_late(Ticket ticket);
    void make_all_late();

    std::unique_ptr<State> state_;  ///< null: the CPU
    std::array<LateCopies, 2> late_;
};

/// Copies between contiguous tensors in host memory, by all threads.
void copy_host_memory(const Tensor& to, const Tensor& from);

}  // namespace colonnade
