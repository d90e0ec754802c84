#pragma once
// Configs of TRL, Axolotl and LLaMA-Factory. Keys that mean something here under another name or in another form are
// rewritten in the tree before it is read. Keys that cannot change a run here, or that are empty or off, are named in
// one notice. What would change the result and is not supported is a problem with the way out.

#include "train/config/keys.h"

namespace colonnade {

/// `name`: the file, for notices. A value of the command line wins over one of the file, whichever name it has.
void port_config(ConfigNode& root, const std::string& name, Reading& reading);

/// Foreign keys and what becomes of them, for the reference page.
struct PortedKey {
    std::string names, becomes;
};
std::vector<PortedKey> ported_keys();

}  // namespace colonnade
