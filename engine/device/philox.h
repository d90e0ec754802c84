#pragma once
// Philox4x32-10: a counter-based random generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC'11). Every number is a pure function of (seed, stream, index), so there is no generator state to save. bits,
// uniform and below are the same on every device; normal may differ in the last digit, which depends on libm.

#include <array>
#include <cmath>
#include <cstdint>

namespace colonnade {

/// One block of four 32-bit random words.
inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
        const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
        counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
                   static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return counter;
}

/// Random numbers for one purpose. `stream` separates purposes (a parameter's index, an epoch), `index` counts the
/// numbers.
struct Philox {
    uint64_t seed;
    uint64_t stream;

    uint64_t bits(uint64_t index) const {
        const auto r = block(index);
        return (uint64_t{r[0]} << 32) | r[1];
    }
    /// Uniform in [0, 1), 53 bits.
    double uniform(uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1.0p-53; }
    /// Standard normal (Box-Muller).
    double normal(uint64_t index) const {
        const auto r = block(index);
        const double u = (static_cast<double>((uint64_t{r[0]} << 21) ^ (r[1] >> 11)) + 0.5) * 0x1.0p-53;
        const double v = static_cast<double>((uint64_t{r[2]} << 21) ^ (r[3] >> 11)) * 0x1.0p-53;
        return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * v);
    }
    /// An integer in [0, n), n > 0, with negligible modulo bias (64-bit multiply-shift).
    uint64_t below(uint64_t index, uint64_t n) const {
        __extension__ using wide = unsigned __int128;
        return static_cast<uint64_t>((static_cast<wide>(bits(index)) * n) >> 64);
    }

    /// The four words of one index.
    std::array<uint32_t, 4> block(uint64_t index) const {
        return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                           static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                          {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    }
};

}  // namespace colonnade
