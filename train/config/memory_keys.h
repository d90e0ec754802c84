#pragma once
// The keys about the memory that a run may take.

#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

/// What CUDA and its libraries take of a GPU beside the plan, about.
constexpr int64_t cuda_memory = int64_t{1} << 30;

Section memory_section();
void check_memory(const Config& config, Rules& rules);

}  // namespace colonnade
