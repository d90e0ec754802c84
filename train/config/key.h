#pragma once
// Key: one entry of a map in the config: its name, its meaning, its range, the field that holds its value. Also reading
// and writing a whole map of keys.

#include <functional>
#include <string>
#include <vector>

#include "train/config/nearest_name.h"
#include "train/config/values.h"

namespace colonnade {

template <typename Struct>
struct Key {
    std::string name, doc = {};
    std::string what = {};                  ///< allowed values: "an integer >= 1"
    std::vector<std::string> aliases = {};  ///< other names it is read under
    std::string default_text = {};          ///< set if the default depends on other keys
    bool affects_weights = true;            ///< the trained weights depend on it
    bool differs_by_machine = false;        ///< ranks of one run may have different values
    std::vector<std::string> unsupported_values = {};

    /// `label` names the key in messages: "datasets[0].path".
    std::function<void(const ConfigNode&, const std::string& label, Struct&, Reading&)> read = {};
    std::function<void(YAML::Emitter&, const Struct&)> write = {};

    // These complete an entry of the table.
    Key without(std::vector<std::string> values) && { return unsupported_values = std::move(values), std::move(*this); }
    Key also(std::vector<std::string> names) && { return aliases = std::move(names), std::move(*this); }
    Key default_is(std::string text) && { return default_text = std::move(text), std::move(*this); }
    Key only_how_to_run() && { return affects_weights = false, std::move(*this); }
    Key per_machine() && { return affects_weights = false, differs_by_machine = true, std::move(*this); }

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
    Key<Struct> key{.name = name, .doc = doc, .what = ValueFormat<T>::what(limits)};
    key.read = [=, what = key.what](const ConfigNode& node, const std::string& label, Struct& value, Reading& reading) {
        if (ValueFormat<T>::read(node, limits, value.*field)) return;
        reading.problems.add(node.where, "{}: expected {}, found {}", label, what, node.found());
        reading.unreadable.insert(label);
    };
    key.write = [=](YAML::Emitter& out, const Struct& value) { ValueFormat<T>::write(out, value.*field); };
    return key;
}

template <typename Struct>
std::string nearest_key(const std::vector<Key<Struct>>& keys, const std::string& name) {
    std::vector<std::string> names;
    for (const Key<Struct>& key : keys) {
        names.push_back(key.name);
        names.insert(names.end(), key.aliases.begin(), key.aliases.end());
    }
    return nearest_name(name, names);
}

template <typename Struct>
std::string unknown_key(const std::vector<Key<Struct>>& keys, const std::string& name) {
    const std::string nearest = nearest_key(keys, name);
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

/// Fills `value` from a map. `prefix` precedes its keys in messages: "", "model.", "datasets[0].".
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
        const std::vector<std::string>& values = key->unsupported_values;
        if (std::find(values.begin(), values.end(), entry.text) != values.end()) {
            reading.problems.add(entry.where, "{}: '{}' is not supported yet", prefix + key->name, entry.text);
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
        out << YAML::Key << key.name << YAML::Value;
        key.write(out, value);
    }
    out << YAML::EndMap;
}

/// A key as help and reference show it.
struct KeyText {
    std::string name, default_text, doc;
    std::string what;  ///< ends in the aliases
};

/// The keys of a map; `prefix` precedes their names.
template <typename Struct>
std::vector<KeyText> describe_keys(const std::vector<Key<Struct>>& keys, const std::string& prefix) {
    std::vector<KeyText> texts;
    for (const Key<Struct>& key : keys) {
        KeyText& text = texts.emplace_back(KeyText{prefix + key.name, key.default_text, key.doc, key.what});
        if (text.default_text.empty()) text.default_text = key.text(Struct{});
        if (text.default_text == "~") text.default_text.clear();
        if (!key.aliases.empty()) text.what += fmt::format("; also {}", fmt::join(key.aliases, ", "));
    }
    return texts;
}

}  // namespace colonnade
