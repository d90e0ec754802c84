#include "tests/fuzz/edges.h"

#include <algorithm>
#include <bit>
#include <cstring>

// What counts is not counted itself, or it would call itself for ever.
#define COLONNADE_NOT_COUNTED __attribute__((no_sanitize_coverage, no_sanitize("address", "undefined")))

extern "C" {
extern const char __executable_start;  // of the linker: the address that everything is relative to
void __sanitizer_cov_trace_pc();
}

namespace colonnade::edges {
namespace {

uint8_t counts[counters];
thread_local uint32_t block_before = 0;
bool any_block = false;

COLONNADE_NOT_COUNTED uint8_t bit_of(uint8_t count) {
    if (count <= 3) return static_cast<uint8_t>(count ? 1 << (count - 1) : 0);
    return static_cast<uint8_t>(count >= 128 ? 1 << 7 : count >= 32 ? 1 << 6 : 1 << (std::bit_width(count) + 0u));
}

}  // namespace

COLONNADE_NOT_COUNTED bool counted() {
    return any_block;
}

COLONNADE_NOT_COUNTED void reset() {
    std::memset(counts, 0, sizeof counts);
    block_before = 0;
}

COLONNADE_NOT_COUNTED bool add_to(Seen& seen) {
    bool found = false;
    for (size_t i = 0; i < counters; i += 8) {
        uint64_t eight;
        std::memcpy(&eight, counts + i, 8);
        if (eight == 0) continue;
        for (size_t k = i; k < i + 8; ++k) {
            const uint8_t bit = bit_of(counts[k]);
            found = found || (bit & ~seen[k]);
            seen[k] |= bit;
        }
    }
    return found;
}

COLONNADE_NOT_COUNTED size_t edges_in(const Seen& seen) {
    size_t n = 0;
    for (const uint8_t bits : seen) n += bits != 0;
    return n;
}

}  // namespace colonnade::edges

extern "C" COLONNADE_NOT_COUNTED void __sanitizer_cov_trace_pc() {
    using namespace colonnade::edges;
    const auto address =
        reinterpret_cast<uintptr_t>(__builtin_return_address(0)) - reinterpret_cast<uintptr_t>(&__executable_start);
    const uint32_t block = static_cast<uint32_t>((address * 0x9E3779B97F4A7C15u) >> (64 - 18));
    uint8_t& count = counts[block ^ block_before];
    if (count != 255) ++count;
    block_before = block >> 1;
    any_block = true;
}
