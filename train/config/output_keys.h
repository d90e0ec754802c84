#pragma once
// The config's keys about evaluation, checkpoints and logs (docs/runs.md).

#include "train/config/keys.h"

namespace colonnade {

Section output_section();

}  // namespace colonnade
