#pragma once
// Checks of the attention kernels: forward and backward of every mask family against dense attention in double.

#include "engine/device/context.h"
#include "train/selftest/check.h"

namespace colonnade {

/// One check for each head dim: on a GPU all that have kernels, on the CPU a usual one and an odd one.
std::vector<Check> attention_checks(const Context& ctx);

}  // namespace colonnade
