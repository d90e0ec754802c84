#pragma once
// The objective of a config's stage.

#include "train/config/config.h"
#include "train/objectives/objective.h"

namespace colonnade {

std::shared_ptr<const Objective> make_objective(const Config& config);

}  // namespace colonnade
