#pragma once
// Config keys of stage grpo, and the rules that involve them (docs/grpo.md).

#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

Section policy_section();

/// Settles the defaults that depend on the stage and the loss, and rejects contradictory keys. After
/// settle_preferences().
void settle_policy(Config& config, Rules& rules);

}  // namespace colonnade
