#pragma once
// The table of keys: one entry per key says how it is called, what it means, what it may be and where its value lives.
// It drives reading, printing, help, the reference page and the search for the nearest name.

#include <functional>
#include <string>
#include <vector>

#include "train/config_values.h"

namespace colonnade {

template <typename Struct>
struct Key {
    std::string name, doc = {};
    std::string what = {};                  ///< "an integer >= 1"
    std::vector<std::string> aliases = {};  ///< other names it is read under
    std::string default_text = {};          ///< where the default hangs on other keys
    bool decides = true;                    ///< has a say in what is learned
    bool planned = false;                   ///< of a later version: an error, unless it has the value `accepted`
    std::string accepted = {};
    std::vector<std::string> planned_values = {};  ///< values of a later version

    /// `label` names the key in messages: "datasets[0].path".
    std::function<void(const ConfigNode&, const std::string& label, Struct&, Reading&)> read = {};
    std::function<void(YAML::Emitter&, const Struct&)> write = {};

    // For writing the table down.
    Key later(std::vector<std::string> values) && { return planned_values = std::move(values), std::move(*this); }
    Key also(std::vector<std::string> names) && { return aliases = std::move(names), std::move(*this); }
    Key default_is(std::string text) && { return default_text = std::move(text), std::move(*this); }
    Key only_how_to_run() && { return decides = false, std::move(*this); }

    /// The value as YAML.
    std::string text(const Struct& value) const {
        YAML::Emitter out;
        write(out, value);
        return out.c_str();
    }
};

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
