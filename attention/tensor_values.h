#pragma once
// Copies between contiguous tensors of f32, f64 or bf16 on either device and doubles on the host: for oracles.

#include <vector>

#include "engine/device/context.h"

namespace colonnade {

/// Sets element i to value(i), rounded to the dtype.
void write_values(const Context& ctx, const Tensor& to, const std::function<double(int64_t)>& value);
/// Exact. Waits for a GPU.
std::vector<double> read_values(const Context& ctx, const Tensor& from);

}  // namespace colonnade
