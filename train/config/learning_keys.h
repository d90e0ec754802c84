#pragma once
// The config's keys about frozen layers and added tokens (docs/learning.md).

#include "train/config/keys.h"

namespace colonnade {

Section freeze_section();
Section tokens_section();

}  // namespace colonnade
