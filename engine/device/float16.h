#pragma once
// IEEE half and bfloat16 as bit patterns, to and from float. Widening is exact. Narrowing rounds to nearest even,
// subnormals included; NaN stays NaN, with the top bits of its payload.

#include <bit>
#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade {

/// The type of a bfloat16 element, so that Tensor::as<bf16>() can ask for one. Kernels see it as __nv_bfloat16.
struct bf16 {
    uint16_t bits;
};

inline float float_from_bf16(uint16_t bits) {
    return std::bit_cast<float>(uint32_t{bits} << 16);
}

inline uint16_t bf16_from_float(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value), top = bits >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    if (nan) return static_cast<uint16_t>(top & 0x7fu ? top : top | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + (top & 1u)) >> 16);
}

/// The bits of a float in two halves: the nearest bfloat16, and what has to be added to its bits:
///
///     bits = (top << 16) + low,   -2^15 <= low < 2^15
///
/// A number halfway between two bfloat16 goes to the one away from zero: to nearest even, `low` would need a 17th bit. NaN
/// keeps the top bits of its payload.
struct SplitFloat {
    uint16_t top;
    int16_t low;
};
COLONNADE_HOST_DEVICE inline SplitFloat split_float(uint32_t bits) {
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    if (nan) return {static_cast<uint16_t>(bits >> 16 | 0x40u), 0};
    const uint32_t top = (bits + 0x8000u) >> 16;
    return {static_cast<uint16_t>(top), static_cast<int16_t>(bits - (top << 16))};
}
COLONNADE_HOST_DEVICE inline uint32_t joined_float(uint16_t top, int16_t low) {
    return (static_cast<uint32_t>(top) << 16) + static_cast<uint32_t>(static_cast<int32_t>(low));
}

inline float float_from_f16(uint16_t bits) {
    const uint32_t sign = uint32_t{bits & 0x8000u} << 16, magnitude = bits & 0x7fffu;
    uint32_t wide;
    if (magnitude >= 0x7c00u)
        wide = 0x7f800000u | (magnitude & 0x3ffu) << 13;
    else if (magnitude >= 0x0400u)
        wide = (magnitude << 13) + (uint32_t{127 - 15} << 23);
    else
        wide = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
    return std::bit_cast<float>(sign | wide);
}

inline uint16_t f16_from_float(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        const uint32_t payload = magnitude >> 13 & 0x3ffu;
        half = 0x7c00u | (payload ? payload : 0x200u);
    } else if (magnitude >= 0x477ff000u) {
        half = 0x7c00u;  // at least 65520, halfway from the largest half to 65536
    } else if (magnitude >= 0x38800000u) {
        const uint32_t rebiased = magnitude - (uint32_t{127 - 15} << 23);
        half = (rebiased + 0xfffu + (rebiased >> 13 & 1u)) >> 13;
    } else {
        // Below 2^-14 halves are multiples of 2^-24, and so are floats from 0.5 to 1: this addition rounds to them.
        half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    }
    return static_cast<uint16_t>(sign | half);
}

}  // namespace colonnade
