#pragma once
// Config keys of stages dpo, rm and kto, and the rules that involve them.

#include "train/config/keys.h"
#include "train/config/rules.h"

namespace colonnade {

Section preference_section();

/// The keys about the reference model; `needed`: the loss, which `what` names, compares with one.
void settle_reference(Config& config, Rules& rules, bool needed, const std::string& what);
/// Settles the defaults that depend on the stage and rejects contradictory keys.
void settle_preferences(Config& config, Rules& rules);

}  // namespace colonnade
