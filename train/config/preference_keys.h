#pragma once
// Config keys of stages dpo, rm and kto, and the rules that involve them.

#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

Section preference_section();

/// Settles the defaults that depend on the stage and rejects contradictory keys.
void settle_preferences(Config& config, Rules& rules);

}  // namespace colonnade
