#include "engine/device/host_transfers.h"

#include <algorithm>
#include <cstring>

namespace colonnade {

HostTransfers::Ticket HostTransfers::to_host(const Tensor& to, const Tensor& from, Ticket after) {
    return enqueue(true, to, from, after);
}

HostTransfers::Ticket HostTransfers::to_device(const Tensor& to, const Tensor& from, Ticket after) {
    return enqueue(false, to, from, after);
}

HostTransfers::Ticket HostTransfers::enqueue_late(bool to_host, const Tensor& to, const Tensor& from, Ticket after) {
    require(to.contiguous() && from.contiguous() && to.bytes() == from.bytes(), "a copy of {} to {}", from, to);
    LateCopies& late = late_[to_host];
    late.copies.push_back({to, from, after});
    Ticket ticket;
    ticket.number_ = late.made + std::ssize(late.copies);
    ticket.to_host_ = to_host;
    return ticket;
}

void HostTransfers::make_late(Ticket ticket) {
    LateCopies& late = late_[ticket.to_host_];
    while (late.made < ticket.number_) {
        const Late next = late.copies.front();
        make_late(next.after);  // of the other direction, or made already
        late.copies.pop_front();
        ++late.made;
        copy_host_memory(next.to, next.from);
    }
}

void HostTransfers::make_all_late() {
    for (const bool to_host : {false, true}) {
        Ticket last;
        last.to_host_ = to_host;
        last.number_ = late_[to_host].made + std::ssize(late_[to_host].copies);
        make_late(last);
    }
}

void copy_host_memory(const Tensor& to, const Tensor& from) {
    require(to.device == Device::cpu && from.device == Device::cpu && to.contiguous() && from.contiguous() &&
                to.bytes() == from.bytes(),
            "a copy of {} to {} in host memory", from, to);
    constexpr int64_t piece = 1 << 22;
    const auto bytes = static_cast<int64_t>(from.bytes());
#pragma omp parallel for schedule(static) if (bytes > piece)
    for (int64_t at = 0; at < bytes; at += piece)
        std::memcpy(static_cast<char*>(to.data) + at, static_cast<const char*>(from.data) + at,
                    static_cast<size_t>(std::min(piece, bytes - at)));
}

}  // namespace colonnade
