#pragma once
// The objective of a config's stage.

#include "train/config.h"
#include "train/objective.h"

namespace colonnade {

std::shared_ptr<const Objective> make_objective(const Config& config);

}  // namespace colonnade
