#pragma once
// The config's keys about packed rows.

#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

Section packing_section();
void settle_packing(Config& config, Rules& rules);

}  // namespace colonnade
