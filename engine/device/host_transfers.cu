#include <vector>

#include "engine/device/gpu.cuh"
#include "engine/device/host_transfers.h"

namespace colonnade {

/// A stream that copies one way. An event is recorded again after `events` further copies: who still waits for the older
/// one then waits for a later copy, which comes after it.
struct HostTransfers::Direction {
    static constexpr int64_t events = 16;
    cudaStream_t stream = nullptr;
    cudaEvent_t done[events] = {};
    int64_t count = 0;  ///< of copies so far

    Direction() {
        check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
        for (cudaEvent_t& event : done)
            check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    }
    ~Direction() {
        cudaStreamSynchronize(stream);
        for (cudaEvent_t event : done)
            if (event) cudaEventDestroy(event);
        cudaStreamDestroy(stream);
    }
    Direction(const Direction&) = delete;
    Direction& operator=(const Direction&) = delete;
};

/// A copy that is timed.
struct TimedCopy {
    cudaEvent_t begin = nullptr, end = nullptr;
    bool to_host = false;
    size_t bytes = 0;
};

struct HostTransfers::State {
    cudaStream_t main = nullptr;
    cudaEvent_t so_far = nullptr;  ///< the work of `main` up to the last enqueue
    Direction directions[2];       ///< to the device, to the host
    bool timing = false;
    std::vector<TimedCopy> timed;

    explicit State(Gpu& gpu) : main(gpu.stream()) {
        check_cuda(cudaEventCreateWithFlags(&so_far, cudaEventDisableTiming), "cudaEventCreate");
    }
    ~State() {
        for (const TimedCopy& copy : timed) forget(copy);
        cudaEventDestroy(so_far);
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    static void forget(const TimedCopy& copy) {
        cudaEventDestroy(copy.begin);
        cudaEventDestroy(copy.end);
    }
    static cudaEvent_t record_time(cudaStream_t stream) {
        cudaEvent_t event = nullptr;
        check_cuda(cudaEventCreate(&event), "cudaEventCreate");
        check_cuda(cudaEventRecord(event, stream), "cudaEventRecord");
        return event;
    }

    void wait(cudaStream_t stream, Ticket ticket) const {
        if (ticket.number_ == 0) return;
        const Direction& direction = directions[ticket.to_host_];
        check_cuda(cudaStreamWaitEvent(stream, direction.done[ticket.number_ % Direction::events], 0),
                   "cudaStreamWaitEvent");
    }
};

HostTransfers::HostTransfers(Gpu* gpu) : state_(gpu ? std::make_unique<State>(*gpu) : nullptr) {}
HostTransfers::~HostTransfers() {
    make_all_late();
}

HostTransfers::Ticket HostTransfers::enqueue(bool to_host, const Tensor& to, const Tensor& from, Ticket after) {
    if (!state_) return enqueue_late(to_host, to, from, after);
    require(to.contiguous() && from.contiguous() && to.bytes() == from.bytes() &&
                to.device == (to_host ? Device::cpu : Device::cuda) &&
                from.device == (to_host ? Device::cuda : Device::cpu),
            "a copy of {} on {} to {} on {}", from, from.device, to, to.device);
    State& s = *state_;
    Direction& direction = s.directions[to_host];
    check_cuda(cudaEventRecord(s.so_far, s.main), "cudaEventRecord");
    check_cuda(cudaStreamWaitEvent(direction.stream, s.so_far, 0), "cudaStreamWaitEvent");
    s.wait(direction.stream, after);
    if (s.timing)
        s.timed.push_back({.begin = State::record_time(direction.stream), .to_host = to_host, .bytes = from.bytes()});
    check_cuda(cudaMemcpyAsync(to.data, from.data, from.bytes(),
                               to_host ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, direction.stream),
               to_host ? "a copy to the host" : "a copy to the device");
    if (s.timing) s.timed.back().end = State::record_time(direction.stream);
    Ticket ticket;
    ticket.number_ = ++direction.count;
    ticket.to_host_ = to_host;
    check_cuda(cudaEventRecord(direction.done[ticket.number_ % Direction::events], direction.stream),
               "cudaEventRecord");
    return ticket;
}

void HostTransfers::await(Ticket ticket) {
    if (state_)
        state_->wait(state_->main, ticket);
    else
        make_late(ticket);
}

void HostTransfers::start_timing() {
    if (state_) state_->timing = true;
}

std::array<HostTransfers::Traffic, 2> HostTransfers::stop_timing() {
    std::array<Traffic, 2> traffic;
    if (!state_) return traffic;
    for (const TimedCopy& copy : state_->timed) {
        float milliseconds = 0;
        check_cuda(cudaEventSynchronize(copy.end), "a copy between host and device");
        check_cuda(cudaEventElapsedTime(&milliseconds, copy.begin, copy.end), "cudaEventElapsedTime");
        traffic[copy.to_host].bytes += static_cast<double>(copy.bytes);
        traffic[copy.to_host].seconds += milliseconds * 1e-3;
        State::forget(copy);
    }
    state_->timed.clear();
    state_->timing = false;
    return traffic;
}

}  // namespace colonnade
