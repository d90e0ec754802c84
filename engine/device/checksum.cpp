#include "engine/device/checksum.h"

#include <cstring>

namespace colonnade {

uint64_t checksum(const Context& ctx, const Tensor& data, const Tensor& sum, int64_t first) {
    require(data.contiguous() && data.bytes() % 4 == 0, "checksum of {}", data);
    if (ctx.device == Device::cuda) {
        int64_t result = 0;
        cuda::checksum(ctx, data, sum, first);
        ctx.gpu->download(&result, sum);
        return static_cast<uint64_t>(result);
    }
    const char* bytes = static_cast<const char*>(data.data);
    const auto words = static_cast<int64_t>(data.bytes() / 4);
    uint64_t total = 0;
#pragma omp parallel for schedule(static) reduction(+ : total)
    for (int64_t i = 0; i < words; ++i) {
        uint32_t word = 0;
        std::memcpy(&word, bytes + 4 * i, sizeof word);
        total += word * checksum_factor(static_cast<uint64_t>(first + i));
    }
    return total;
}

}  // namespace colonnade
