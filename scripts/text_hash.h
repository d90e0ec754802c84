#pragma once
// A hash of texts that decides about rows of data sets: their order, what is held out, what is drawn.

#include <cmath>
#include <cstdint>
#include <string_view>

namespace colonnade {

/// FNV-1a with the finaliser of MurmurHash3, which spreads short texts over all 64 bits.
inline uint64_t hash_of(std::string_view text) {
    uint64_t h = 0xcbf29ce484222325;
    for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53;
    return h ^ (h >> 33);
}

/// The hash as a number in [0, 1).
inline double share_of(std::string_view text) {
    return std::ldexp(static_cast<double>(hash_of(text) >> 11), -53);
}

}  // namespace colonnade
