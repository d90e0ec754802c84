#pragma once
// Config keys about the rewards of stage grpo (docs/scored_data.md), and what stages grpo and kto ask of the data.

#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

Section reward_section();

/// Settles the defaults of stages whose answers have scores, and rejects contradictory keys.
void settle_rewards(Config& config, Rules& rules);

}  // namespace colonnade
