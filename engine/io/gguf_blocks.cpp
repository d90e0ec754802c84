#include "engine/io/gguf_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/device/float16.h"

namespace colonnade {
namespace {

template <typename T>
T load(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

float half(const uint8_t* from) {
    return float_from_f16(load<uint16_t>(from));
}

void store(uint8_t* to, uint16_t bits) {
    std::memcpy(to, &bits, sizeof bits);
}

// --- Unquantised types: a block is one element -----------------------------------------------------------------------

void decode_f32(const uint8_t* from, int64_t count, float* to) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void decode_f16(const uint8_t* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = half(from + 2 * i);
}

void decode_bf16(const uint8_t* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = float_from_bf16(load<uint16_t>(from + 2 * i));
}

void encode_f32(const float* from, int64_t count, uint8_t* to) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

void encode_f16(const float* from, int64_t count, uint8_t* to) {
    for (int64_t i = 0; i < count; ++i) store(to + 2 * i, f16_from_float(from[i]));
}

void encode_bf16(const float* from, int64_t count, uint8_t* to) {
    for (int64_t i = 0; i < count; ++i) store(to + 2 * i, bf16_from_float(from[i]));
}

void decode_f64(const uint8_t* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(load<double>(from + 8 * i));
}

// --- Blocks of 32 elements -------------------------------------------------------------------------------------------
// d and m are f16. Byte j of q holds element j in its low and element j + 16 in its high four bits. Products of a scale
// and an integer are exact in f32, so that only the addition of an offset rounds, with or without a fused
// multiply-add.

// d, q[16]: (nibble - 8) d
void decode_q4_0(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 18, to += 32) {
        const float d = half(from);
        const uint8_t* q = from + 2;
        for (int j = 0; j < 16; ++j) {
            to[j] = static_cast<float>((q[j] & 15) - 8) * d;
            to[j + 16] = static_cast<float>((q[j] >> 4) - 8) * d;
        }
    }
}

// d, m, q[16]: nibble d + m
void decode_q4_1(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 20, to += 32) {
        const float d = half(from), m = half(from + 2);
        const uint8_t* q = from + 4;
        for (int j = 0; j < 16; ++j) {
            to[j] = static_cast<float>(q[j] & 15) * d + m;
            to[j + 16] = static_cast<float>(q[j] >> 4) * d + m;
        }
    }
}

// The five-bit integer of element j: four bits in q, the highest in bit j of `high`.
int five_bits(const uint8_t* q, uint32_t high, int j) {
    const int low = j < 16 ? q[j] & 15 : q[j - 16] >> 4;
    return low | static_cast<int>(high >> j & 1u) << 4;
}

// d, high (u32), q[16]: (n - 16) d
void decode_q5_0(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 22, to += 32) {
        const float d = half(from);
        const auto high = load<uint32_t>(from + 2);
        for (int j = 0; j < 32; ++j) to[j] = static_cast<float>(five_bits(from + 6, high, j) - 16) * d;
    }
}

// d, m, high (u32), q[16]: n d + m
void decode_q5_1(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 24, to += 32) {
        const float d = half(from), m = half(from + 2);
        const auto high = load<uint32_t>(from + 4);
        for (int j = 0; j < 32; ++j) to[j] = static_cast<float>(five_bits(from + 8, high, j)) * d + m;
    }
}

// d, q[32] (i8): q d
void decode_q8_0(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 34, to += 32) {
        const float d = half(from);
        for (int j = 0; j < 32; ++j) to[j] = static_cast<float>(static_cast<int8_t>(from[2 + j])) * d;
    }
}

// d = max |x| / 127; q = x / d, halves away from zero. d is rounded to f16 after the division, as in ggml.
void encode_q8_0(const float* from, int64_t count, uint8_t* to) {
    for (; count > 0; --count, from += 32, to += 34) {
        float largest = 0;
        for (int j = 0; j < 32; ++j) largest = std::max(largest, std::abs(from[j]));
        const float d = largest / 127, quotient = 1 / d;
        const float inverse = std::isinf(quotient) ? 0 : quotient;  // f16 has no such small d: the elements become 0
        store(to, f16_from_float(d));
        for (int j = 0; j < 32; ++j)
            to[2 + j] = static_cast<uint8_t>(static_cast<int8_t>(std::round(from[j] * inverse)));
    }
}

// --- Blocks of 256 elements ------------------------------------------------------------------------------------------

// The scale and the minimum of group g of 32 elements, six bits each, in 12 bytes: groups 0 to 3 in the low six bits of
// s[g] and s[g + 4]; groups 4 to 7 in the nibbles of s[g + 4] and the two highest bits of s[g - 4] and s[g].
struct GroupScale {
    int scale, minimum;
};
GroupScale group_scale(const uint8_t* s, int g) {
    if (g < 4) return {s[g] & 63, s[g + 4] & 63};
    return {(s[g + 4] & 15) | (s[g - 4] >> 6) << 4, (s[g + 4] >> 4) | (s[g] >> 6) << 4};
}

// d, dmin, s[12], q[128]: d scale n - dmin minimum. The low nibbles of q[32 p ...] are group 2p, the high ones 2p + 1.
void decode_q4_k(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 144) {
        const float d = half(from), dmin = half(from + 2);
        for (int g = 0; g < 8; ++g, to += 32) {
            const GroupScale s = group_scale(from + 4, g);
            const float scale = d * static_cast<float>(s.scale), minimum = dmin * static_cast<float>(s.minimum);
            const uint8_t* q = from + 16 + g / 2 * 32;
            const int shift = g % 2 * 4;
            for (int j = 0; j < 32; ++j) to[j] = scale * static_cast<float>(q[j] >> shift & 15) - minimum;
        }
    }
}

// Q4_K with a fifth bit: bit g of high[j]. d, dmin, s[12], high[32], q[128].
void decode_q5_k(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 176) {
        const float d = half(from), dmin = half(from + 2);
        const uint8_t* high = from + 16;
        for (int g = 0; g < 8; ++g, to += 32) {
            const GroupScale s = group_scale(from + 4, g);
            const float scale = d * static_cast<float>(s.scale), minimum = dmin * static_cast<float>(s.minimum);
            const uint8_t* q = from + 48 + g / 2 * 32;
            const int shift = g % 2 * 4;
            for (int j = 0; j < 32; ++j)
                to[j] = scale * static_cast<float>((q[j] >> shift & 15) | (high[j] >> g & 1) << 4) - minimum;
        }
    }
}

// low[128], high[64], s[16] (i8), d: d s (n - 32). Each half of 128 elements has 64 bytes of low and 32 of high. Group
// k of its four groups of 32: bits 2k of high[j]; the low nibbles (k = 0, 1) or the high ones (2, 3) of low.
void decode_q6_k(const uint8_t* from, int64_t count, float* to) {
    for (; count > 0; --count, from += 210) {
        const float d = half(from + 208);
        for (int g = 0; g < 8; ++g, to += 32) {
            const int k = g % 4;
            const uint8_t* low = from + g / 4 * 64 + k % 2 * 32;
            const uint8_t* high = from + 128 + g / 4 * 32;
            for (int j = 0; j < 32; ++j) {
                const float scale = d * static_cast<float>(static_cast<int8_t>(from[192 + 2 * g + j / 16]));
                const int n = (low[j] >> (k / 2 * 4) & 15) | (high[j] >> (2 * k) & 3) << 4;
                to[j] = scale * static_cast<float>(n - 32);
            }
        }
    }
}

constexpr float f16_limit = 65520;  // halfway from the largest f16 to the next power of two

constexpr GgufType types[] = {
    {0, "F32", 1, 4, DType::f32, true, decode_f32, encode_f32},
    {1, "F16", 1, 2, DType::f16, true, decode_f16, encode_f16, f16_limit},
    {2, "Q4_0", 32, 18, DType::f32, false, decode_q4_0},
    {3, "Q4_1", 32, 20, DType::f32, false, decode_q4_1},
    {6, "Q5_0", 32, 22, DType::f32, false, decode_q5_0},
    {7, "Q5_1", 32, 24, DType::f32, false, decode_q5_1},
    {8, "Q8_0", 32, 34, DType::f32, false, decode_q8_0, encode_q8_0, 127 * f16_limit},
    {9, "Q8_1", 32, 40, DType::f32, false, nullptr},
    {10, "Q2_K", 256, 84, DType::f32, false, nullptr},
    {11, "Q3_K", 256, 110, DType::f32, false, nullptr},
    {12, "Q4_K", 256, 144, DType::f32, false, decode_q4_k},
    {13, "Q5_K", 256, 176, DType::f32, false, decode_q5_k},
    {14, "Q6_K", 256, 210, DType::f32, false, decode_q6_k},
    {15, "Q8_K", 256, 292, DType::f32, false, nullptr},
    {16, "IQ2_XXS", 256, 66, DType::f32, false, nullptr},
    {17, "IQ2_XS", 256, 74, DType::f32, false, nullptr},
    {18, "IQ3_XXS", 256, 98, DType::f32, false, nullptr},
    {19, "IQ1_S", 256, 50, DType::f32, false, nullptr},
    {20, "IQ4_NL", 32, 18, DType::f32, false, nullptr},
    {21, "IQ3_S", 256, 110, DType::f32, false, nullptr},
    {22, "IQ2_S", 256, 82, DType::f32, false, nullptr},
    {23, "IQ4_XS", 256, 136, DType::f32, false, nullptr},
    {24, "I8", 1, 1, DType::f32, false, nullptr},
    {25, "I16", 1, 2, DType::f32, false, nullptr},
    {26, "I32", 1, 4, DType::i32, true, nullptr},
    {27, "I64", 1, 8, DType::i64, true, nullptr},
    {28, "F64", 1, 8, DType::f64, true, decode_f64},
    {29, "IQ1_M", 256, 56, DType::f32, false, nullptr},
    {30, "BF16", 1, 2, DType::bf16, true, decode_bf16, encode_bf16},
    {34, "TQ1_0", 256, 54, DType::f32, false, nullptr},
    {35, "TQ2_0", 256, 66, DType::f32, false, nullptr},
    {39, "MXFP4", 32, 17, DType::f32, false, nullptr},
    {40, "NVFP4", 64, 36, DType::f32, false, nullptr},
    {41, "Q1_0", 128, 18, DType::f32, false, nullptr},
};

const GgufType* found_or_null(const GgufType* found) {
    return found == std::end(types) ? nullptr : found;
}

}  // namespace

const GgufType* find_gguf_type(uint32_t id) {
    return found_or_null(std::ranges::find(types, id, &GgufType::id));
}

const GgufType* find_gguf_type(const char* name) {
    return found_or_null(std::ranges::find_if(types, [&](const auto& t) { return std::strcmp(t.name, name) == 0; }));
}

}  // namespace colonnade
