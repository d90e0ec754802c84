#pragma once
// The keys about the memory that a run may take.

#include "train/config/cuda_memory.h"
#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

Section memory_section();
void check_memory(const Config& config, Rules& rules);

}  // namespace colonnade
