#pragma once
// What no single key can tell: defaults that hang on other keys, and rules between keys.

#include "train/config_keys.h"

namespace colonnade {

/// Fills in the defaults, then adds a problem for every rule that does not hold. Rules about keys that could not be
/// read are left out. `name` is the place of what is missing altogether.
void settle_config(Config& config, Reading& reading, const std::string& name);

}  // namespace colonnade
