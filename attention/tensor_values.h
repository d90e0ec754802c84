#pragma once
// Contiguous tensors of f32, f64 or bf16, on either device, from and to doubles on the host: for oracles.

#include <vector>

#include "engine/device/context.h"

namespace colonnade {

/// Element i becomes value(i), rounded to the dtype.
void write_values(const Context& ctx, const Tensor& to, const std::function<double(int64_t)>& value);
/// Exact; waits for the GPU.
std::vector<double> read_values(const Context& ctx, const Tensor& from);

}  // namespace colonnade
