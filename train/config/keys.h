#pragma once
// The table of keys: one entry per key with its name, its meaning, its range and the field that holds its value.
// Reading, printing, help, the reference page and the search for the nearest name all use it.

#include <string>
#include <vector>

#include "train/config/key.h"

namespace colonnade {

struct Section {
    std::string title;
    std::vector<Key<Config>> keys;
    std::vector<KeyText> nested = {};  ///< keys of the maps in this section
};
std::vector<Section> config_sections();
std::vector<Key<ModelShape>> model_keys();
std::vector<Key<DatasetSpec>> dataset_keys();

/// The name of a top-level key, given its name or an alias. Returns other text unchanged.
std::string canonical_key(const std::string& name);
/// Whether a top-level key has this name or alias.
bool is_config_key(const std::string& name);
/// The top-level key that an unknown one probably stands for; empty if there is none.
std::string nearest_key(const std::string& name);

/// Of a key's doc, for where a line has to do.
std::string first_sentence(const std::string& doc);

/// A key with its value and its default: YAML in one line, or words if the default depends on other keys.
struct KeyValue {
    std::string key, value, default_value;
    bool fixed_default = true;  ///< the default depends on no other key
};
/// Every key, in the table's order.
std::vector<KeyValue> key_values(const Config& config);

void read_config(const ConfigNode& root, Config& config, Reading& reading);

}  // namespace colonnade
