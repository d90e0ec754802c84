#pragma once
// 8-bit moments of AdamW: a byte per element, and an f32 unit per block of 64 elements.
//
//     m = unit * k |k|,  k = -127..127        the byte is k;      unit = (largest |m| of the block) / 127^2
//     v = unit * k^4,    k = 1..256           the byte is k - 1;  unit = (largest v of the block) / 256^4
//
// Both codes are linear in the root of a gradient's size, because m is in proportion to the gradient and v to its
// square: the steps between codes are 1.6 % of the largest value and 16 % of one that is a hundredth (m) or a
// ten-thousandth (v) of it. bitsandbytes (arXiv 2110.02861) has tables of 256 numbers instead; they are coarser for all
// but the largest moments (tests/train/optimizer/moment_codes_test.cpp), and a kernel has to search them.
//
// v has no code for 0: an element whose v became 0 before its m would make a step of m / epsilon (arXiv 2309.01507,
// "zero-point problem"). What is smaller than the first code becomes the first code.
//
// An update changes v by about (1 - beta2) v, much less than the distance between codes. Therefore values are rounded
// stochastically: up with the probability that keeps the mean. The units decay exactly, with no rounding of codes.
//
// A block of 64 never crosses a border between parameters that differ in weight decay, nor one between the ranks'
// shares, because both are at multiples of 64.
//
// Fused multiply-adds are spelled out, so that every device gives the same bits. Minima are conditions, because fminf
// keeps a CPU's loops from being vectorised: the update is three times as fast.

#include <cmath>
#include <cstdint>

#include "engine/device/host_device.h"

namespace colonnade {

constexpr int64_t moment_block = 64;

/// Below this the largest moment of a block counts as 0, so that neither a unit nor its inverse leaves f32's range.
constexpr float smallest_moment = 0x1p-94f;

struct MomentUnit {
    float unit, inverse;  ///< both 0 for a block of zeros
};
COLONNADE_HOST_DEVICE inline MomentUnit moment_unit(float largest, float steps) {
    if (!(largest >= smallest_moment)) return {0, 0};
    return {largest / steps, steps / largest};
}
COLONNADE_HOST_DEVICE inline MomentUnit m_unit(float largest) {
    return moment_unit(largest, 127.0f * 127.0f);
}
COLONNADE_HOST_DEVICE inline MomentUnit v_unit(float largest) {
    return moment_unit(largest, 0x1p32f);
}

COLONNADE_HOST_DEVICE inline float m_of(uint8_t code, float unit) {
    const auto k = static_cast<float>(static_cast<int8_t>(code));
    return unit * (k * fabsf(k));
}
COLONNADE_HOST_DEVICE inline float v_of(uint8_t code, float unit) {
    const float k = static_cast<float>(code) + 1, square = k * k;
    return unit * (square * square);
}

/// Whether `y` between `low` and `high` is rounded up, by 16 random bits.
COLONNADE_HOST_DEVICE inline bool rounds_up(float y, float low, float high, uint32_t random) {
    return fmaf(static_cast<float>(random) + 0.5f, (high - low) * 0x1p-16f, low) < y;
}
COLONNADE_HOST_DEVICE inline uint8_t m_code(float m, MomentUnit unit, uint32_t random) {
    const float y = fabsf(m) * unit.inverse;
    const float root = floorf(sqrtf(y)), k = root < 126 ? root : 126;
    const int code = static_cast<int>(k) + (rounds_up(y, k * k, (k + 1) * (k + 1), random) ? 1 : 0);
    return static_cast<uint8_t>(static_cast<int8_t>(m < 0 ? -code : code));
}
COLONNADE_HOST_DEVICE inline uint8_t v_code(float v, MomentUnit unit, uint32_t random) {
    const float y = v * unit.inverse;
    const float root = floorf(sqrtf(sqrtf(y))), k = root < 1 ? 1 : root < 255 ? root : 255;
    const float low = k * k, high = (k + 1) * (k + 1);
    return static_cast<uint8_t>(static_cast<int>(k) - 1 + (rounds_up(y, low * low, high * high, random) ? 1 : 0));
}

}  // namespace colonnade
