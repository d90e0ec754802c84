#pragma once
// Config keys of stage distill, and the rules that involve them (docs/distillation.md).

#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

Section distillation_section();

/// Settles the defaults that depend on the stage, and rejects contradictory keys. After settle_policy().
void settle_distillation(Config& config, Rules& rules);

}  // namespace colonnade
