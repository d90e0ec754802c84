#pragma once

#include <cstdint>

namespace colonnade {

/// What CUDA and its libraries take of a GPU beside the plan, about.
constexpr int64_t cuda_memory = int64_t{1} << 30;

}  // namespace colonnade
