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

void copy_host_memory(const Tensor& to, const Tensor& from) {
    require(to.device == Device::cpu && from.device == Device::cpu && to.contiguous() && from.contiguous() &&
                to.bytes() == from.bytes(),
            "a copy of {} to {} in host memory", from, to);
    constexpr int64_t piece = 1 << 22;
    const auto bytes = static_cast<int64_t>(from.bytes());
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < bytes; at += piece)
        std::memcpy(static_cast<char*>(to.data) + at, static_cast<const char*>(from.data) + at,
                    static_cast<size_t>(std::min(piece, bytes - at)));
}

}  // namespace colonnade
