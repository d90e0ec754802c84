#pragma once
// The table of keys: one entry per key says how it is called, what it means, what it may be and where its value lives.
// It drives reading, printing, help, the reference page and the search for the nearest name.

#include <string>
#include <vector>

#include "train/config/config_key.h"

namespace colonnade {

struct Section {
    std::string title;
    std::vector<Key<Config>> keys;
};
/// The table, without the keys of later versions.
std::vector<Section> config_sections();
std::vector<Key<ModelShape>> model_keys();
std::vector<Key<DatasetSpec>> dataset_keys();

/// The name of a top-level key given its name or an alias; other text comes back as it is.
std::string canonical_key(const std::string& name);

void read_config(const ConfigNode& root, Config& config, Reading& reading);

}  // namespace colonnade
