#pragma once
// Key: how one entry of a map in the config is called, what it means, what it may be and where its value lives; and how
// a whole map of keys is read and written.

#include <functional>
#include <string>
#include <vector>

#include "train/config/config_values.h"
#include "train/config/nearest_name.h"

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

/// A key that holds one value of the struct.
template <typename Struct, typename T>
Key<Struct> key(const char* name, T Struct::*field, const char* doc, const Limits& limits = {}) {
    Key<Struct> key{.name = name, .doc = doc, .what = Form<T>::what(limits)};
    key.read = [=, what = key.what](const ConfigNode& node, const std::string& label, Struct& value, Reading& reading) {
        if (Form<T>::read(node, limits, value.*field)) return;
        reading.problems.add(node.where, "{}: expected {}, found {}", label, what, node.found());
        reading.unreadable.insert(label);
    };
    key.write = [=](YAML::Emitter& out, const Struct& value) { Form<T>::write(out, value.*field); };
    return key;
}

/// A key of a later version.
template <typename Struct>
Key<Struct> planned(const char* name, const char* accepted = "") {
    Key<Struct> key{.name = name, .planned = true, .accepted = accepted};
    key.read = [=](const ConfigNode& node, const std::string& label, Struct&, Reading& reading) {
        if (*accepted && node.text == accepted) return;
        reading.problems.add(node.where, "{}: this key is not in this version{}", label,
                             *accepted ? fmt::format(" (only '{}' is)", accepted) : "");
    };
    return key;
}

template <typename Struct>
std::string unknown_key(const std::vector<Key<Struct>>& keys, const std::string& name) {
    std::vector<std::string> names;
    for (const Key<Struct>& key : keys) {
        names.push_back(key.name);
        names.insert(names.end(), key.aliases.begin(), key.aliases.end());
    }
    const std::string nearest = nearest_name(name, names);
    return fmt::format("unknown key '{}'{}", name,
                       nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest));
}

template <typename Struct>
const Key<Struct>* find_key(const std::vector<Key<Struct>>& keys, const std::string& name) {
    for (const Key<Struct>& key : keys) {
        if (key.name == name || std::find(key.aliases.begin(), key.aliases.end(), name) != key.aliases.end())
            return &key;
    }
    return nullptr;
}

/// Fills `value` from a map; `prefix` stands before its keys in messages: "", "model.", "datasets[0].".
template <typename Struct>
void read_keys(const std::vector<Key<Struct>>& keys, const ConfigNode& map, const std::string& prefix, Struct& value,
               Reading& reading) {
    std::map<std::string, std::string> seen;  // name -> place
    for (const ConfigNode& entry : map.children) {
        const Key<Struct>* key = find_key(keys, entry.key);
        if (!key) {
            reading.problems.add(entry.key_where, "{}", unknown_key(keys, entry.key));
            continue;
        }
        if (const auto [first, fresh] = seen.emplace(key->name, entry.key_where); !fresh) {
            reading.problems.add(entry.key_where, "{}{} is given twice, first at {}", prefix, key->name, first->second);
            continue;
        }
        if (entry.key != key->name)
            reading.notices.push_back(fmt::format("{}: '{}' is read as '{}'", entry.key_where, entry.key, key->name));
        if (entry.kind == ConfigNode::Kind::null) continue;
        reading.given.emplace(prefix + key->name, entry.where);
        const std::vector<std::string>& planned = key->planned_values;
        if (std::find(planned.begin(), planned.end(), entry.text) != planned.end()) {
            reading.problems.add(entry.where, "{}: '{}' is not in this version", prefix + key->name, entry.text);
            reading.unreadable.insert(prefix + key->name);
            continue;
        }
        key->read(entry, prefix + key->name, value, reading);
    }
}

template <typename Struct>
void write_keys(const std::vector<Key<Struct>>& keys, YAML::Emitter& out, const Struct& value) {
    out << YAML::BeginMap;
    for (const Key<Struct>& key : keys) {
        if (key.planned) continue;
        out << YAML::Key << key.name << YAML::Value;
        key.write(out, value);
    }
    out << YAML::EndMap;
}

}  // namespace colonnade
