#pragma once

#include "train/config/config.h"
#include "train/objectives/objective.h"

namespace colonnade {

/// The objective of the config's stage.
std::shared_ptr<const Objective> make_objective(const Config& config);

}  // namespace colonnade
