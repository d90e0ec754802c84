#include "engine/device/float16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace colonnade {
namespace {

// The value of a bit pattern by the definition of the format. Infinity counts as the next power of two.
double value_of(uint32_t magnitude, int mantissa_bits, int exponent_bits) {
    const int exponent = static_cast<int>(magnitude >> mantissa_bits), bias = (1 << (exponent_bits - 1)) - 1;
    const double fraction = std::ldexp(static_cast<double>(magnitude & ((1u << mantissa_bits) - 1)), -mantissa_bits);
    return exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
}

void check_format(int mantissa_bits, int exponent_bits, float (*widen)(uint16_t), uint16_t (*narrow)(float)) {
    const uint32_t infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto pattern = static_cast<uint16_t>(bits);
        const uint32_t magnitude = bits & 0x7fff;
        const float wide = widen(pattern);
        ASSERT_EQ(std::signbit(wide), bits >= 0x8000) << bits;
        ASSERT_EQ(narrow(wide), pattern) << bits << " there and back, also for payloads of NaN";
        if (magnitude > infinity)
            ASSERT_TRUE(std::isnan(wide)) << bits;
        else if (magnitude == infinity)
            ASSERT_TRUE(std::isinf(wide)) << bits;
        else
            ASSERT_EQ(std::abs(static_cast<double>(wide)), value_of(magnitude, mantissa_bits, exponent_bits)) << bits;
        if (magnitude >= infinity) continue;
        // Narrowing is monotone, so checking both sides of every boundary checks all values.
        const double middle = (value_of(magnitude, mantissa_bits, exponent_bits) +
                               value_of(magnitude + 1, mantissa_bits, exponent_bits)) /
                              2;
        const float boundary = std::copysign(static_cast<float>(middle), wide);
        const auto next = static_cast<uint16_t>(bits + 1), even = bits % 2 == 0 ? pattern : next;
        ASSERT_EQ(static_cast<double>(std::abs(boundary)), middle) << "a boundary is a float";
        ASSERT_EQ(narrow(boundary), even) << bits;
        ASSERT_EQ(narrow(std::nextafter(boundary, 0.0f)), pattern) << bits;
        ASSERT_EQ(narrow(std::nextafter(boundary, std::copysign(INFINITY, wide))), next) << bits;
    }
    // A NaN whose payload has only bits that the narrow format drops must not become infinity.
    ASSERT_TRUE(std::isnan(widen(narrow(std::bit_cast<float>(0x7f800001u)))));
    ASSERT_TRUE(std::isnan(widen(narrow(std::bit_cast<float>(0xff800001u)))));
    ASSERT_EQ(widen(narrow(std::numeric_limits<float>::denorm_min())), 0.0f);
}

TEST(Float16, HalfIsExact) {
    check_format(10, 5, float_from_f16, f16_from_float);
}
TEST(Float16, Bfloat16IsExact) {
    check_format(7, 8, float_from_bf16, bf16_from_float);
}

// Every float is its two halves, and the upper one is the nearest bfloat16. Checked for all numbers near every border
// between the halves, and for a step through all of them.
TEST(Float16, AFloatIsItsTwoHalves) {
    const auto check = [](uint32_t bits) {
        const auto [top, low] = split_float(bits);
        const float value = std::bit_cast<float>(bits), rounded = float_from_bf16(top);
        if (std::isnan(value)) {
            ASSERT_TRUE(std::isnan(rounded) && std::isnan(std::bit_cast<float>(joined_float(top, low)))) << bits;
            return;
        }
        ASSERT_EQ(joined_float(top, low), bits);
        // It differs from rounding to nearest even only halfway between two numbers, and then goes away from zero.
        if ((bits & 0xffffu) == 0x8000u)
            ASSERT_EQ(top, static_cast<uint16_t>((bits >> 16) + 1)) << bits;
        else
            ASSERT_EQ(top, bf16_from_float(value)) << bits;
    };
    for (uint32_t top = 0; top < 0x10000; ++top)
        for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) check(top << 16 | low);
    for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 40'503) check(static_cast<uint32_t>(bits));
}

}  // namespace
}  // namespace colonnade
