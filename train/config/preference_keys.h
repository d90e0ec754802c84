#pragma once
// The config keys of stages dpo and rm, and the rules between them.

#include "train/config/config_check.h"
#include "train/config/config_keys.h"

namespace colonnade {

Section preference_section();

/// Settles defaults that hang on the stage, and refuses what makes no sense together.
void settle_preferences(Config& config, Rules& rules);

}  // namespace colonnade
