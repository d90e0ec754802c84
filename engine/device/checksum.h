#pragma once
// Checksum of a tensor's bits, to compare tensors across ranks. With w_i the i-th 32-bit word,
//
//     sum_i w_i * odd(i)  mod 2^64,   odd(i) = SplitMix64(i) | 1
//
// Any single changed word changes the sum, and so do swapped words. The order of summation does not, so CPU and GPU
// give the same number. It does not protect against deliberate changes.

#include <cstdint>

#include "engine/device/context.h"

namespace colonnade {

constexpr uint64_t checksum_factor(uint64_t i) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) | 1;
}

/// `data` is contiguous and has a multiple of 4 bytes. On a GPU it waits, and `sum` is i64 [1], overwritten. The sums of
/// the pieces of a tensor add up to that of the whole: `first` is the index of the piece's first word.
uint64_t checksum(const Context& ctx, const Tensor& data, const Tensor& sum = {}, int64_t first = 0);

namespace cuda {
void checksum(const Context& ctx, const Tensor& data, const Tensor& sum, int64_t first);  ///< enqueues
}

}  // namespace colonnade
