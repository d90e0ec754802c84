#pragma once
// exp that a compiler can vectorise. In float it is branch-free (Cephes expf: range reduction by ln 2 in two parts,
// degree-5 polynomial; about 2 ulp). In double it is std::exp: only gradient checks use it, and speed does not matter
// there.

#include <bit>
#include <cmath>
#include <cstdint>

namespace colonnade {

inline double vexp(double x) {
    return std::exp(x);
}

inline float vexp(float x) {
    // Below -87.3 the result would be subnormal: it is 0 here, which also makes exp(-inf) = 0.
    const float clamped = x < -87.3f ? -87.3f : (x > 88.7f ? 88.7f : x);
    // NaN cannot be converted to an integer below: n is then 0, and r passes the NaN on.
    const float n = std::nearbyint((clamped == clamped ? clamped : 0.0f) * 1.44269504088896341f);
    const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t exponent = static_cast<int32_t>(n) + 127;  // -126..128
    // 2^128 does not fit a float's exponent: scale in two halves.
    const float half = std::bit_cast<float>(((exponent + 127) / 2) << 23);
    const float rest = std::bit_cast<float>((exponent + 127 - (exponent + 127) / 2) << 23);
    const float y = p * half * rest;
    return x < -87.3f ? 0.0f : y;
}

}  // namespace colonnade
