#pragma once
// ValueFormat: how a value of each type in Config is read from the tree, described, and written as YAML. Scalars are
// strict: the whole text must be the value, quoted text is never a number or a boolean, NaN and infinity are not
// numbers.

#include <yaml-cpp/emitter.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/device/human_units.h"
#include "engine/io/json.h"
#include "train/config/spellings.h"
#include "train/config/tree.h"

namespace colonnade {

/// Restricts a value beyond its type.
struct Limits {
    double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
    bool low_excluded = false, high_excluded = false;
    std::vector<std::string> choices = {};                 ///< for text; empty: any
    std::map<std::string, std::string> also_spelled = {};  ///< for text: {"true", "auto"}

    bool hold(double value) const {
        return (low_excluded ? value > low : value >= low) && (high_excluded ? value < high : value <= high);
    }
    bool hold(const std::string& text) const {
        return choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end();
    }
    /// " >= 0 and < 1"
    std::string range() const {
        std::string text;
        if (std::isfinite(low)) text += fmt::format(" {} {}", low_excluded ? ">" : ">=", low);
        if (std::isfinite(high))
            text += fmt::format("{} {} {}", text.empty() ? "" : " and", high_excluded ? "<" : "<=", high);
        return text;
    }
};
inline Limits at_least(double low) {
    return {.low = low};
}
inline Limits above(double low) {
    return {.low = low, .low_excluded = true};
}
inline Limits from_to(double low, double high) {
    return {.low = low, .high = high};
}
inline Limits from_to_below(double low, double high) {
    return {.low = low, .high = high, .high_excluded = true};
}
inline Limits one_of(std::vector<std::string> choices) {
    return {.choices = std::move(choices)};
}

/// Everything that reading collects in addition to the values.
struct Reading {
    Problems problems;
    std::vector<std::string> notices;
    std::map<std::string, std::string> given;  ///< keys that have a value ("model.head_dim") and their places
    std::set<std::string> unreadable;          ///< keys whose value has the wrong form
};

/// ValueFormat<T>: what() describes the allowed values, read() parses one (false: the node is something else), write()
/// prints one.
/// "true" or "false" for an unquoted boolean in any of YAML 1.1's spellings, which other trainers' readers accept; other
/// text unchanged.
inline std::string boolean_text(const ConfigNode& node) {
    static const std::map<std::string_view, const char*> spelled = {
        {"True", "true"}, {"TRUE", "true"}, {"yes", "true"},    {"Yes", "true"},    {"YES", "true"}, {"on", "true"},
        {"On", "true"},   {"ON", "true"},   {"False", "false"}, {"FALSE", "false"}, {"no", "false"}, {"No", "false"},
        {"NO", "false"},  {"off", "false"}, {"Off", "false"},   {"OFF", "false"}};
    const auto found = node.quoted ? spelled.end() : spelled.find(node.text);
    return found == spelled.end() ? node.text : found->second;
}

template <typename T>
struct ValueFormat {  // enums
    static std::string what(const Limits&) { return "one of " + spelled_choices<T>(); }
    static bool read(const ConfigNode& node, const Limits&, T& value) {
        for (const std::string& text : {node.text, boolean_text(node)})  // "no" and "off" may be names, too
            for (const auto& s : spellings<T>)
                if (node.kind == ConfigNode::Kind::scalar && text == s.name) return value = s.value, true;
        return false;
    }
    static void write(YAML::Emitter& out, T value) { out << spell(value); }
};

template <>
struct ValueFormat<bool> {
    static std::string what(const Limits&) { return "true or false"; }
    static bool read(const ConfigNode& node, const Limits&, bool& value) {
        const std::string text = boolean_text(node);
        value = text == "true";
        return node.kind == ConfigNode::Kind::scalar && !node.quoted && (value || text == "false");
    }
    static void write(YAML::Emitter& out, bool value) { out << (value ? "true" : "false"); }
};

template <typename T>
requires(std::is_same_v<T, int64_t> || std::is_same_v<T, double>) struct ValueFormat<T> {
    static std::string what(const Limits& limits) {
        return (std::is_same_v<T, double> ? "a number" : "an integer") + limits.range();
    }
    static bool read(const ConfigNode& node, const Limits& limits, T& value) {
        if (node.kind != ConfigNode::Kind::scalar || node.quoted) return false;
        const char* end = node.text.data() + node.text.size();
        T number{};
        const auto [stop, error] = std::from_chars(node.text.data(), end, number);
        const auto real = static_cast<double>(number);
        if (error != std::errc() || stop != end || !std::isfinite(real) || !limits.hold(real)) return false;
        value = number;
        return true;
    }
    static void write(YAML::Emitter& out, T value) { out << fmt::format("{}", value); }
};

template <>
struct ValueFormat<Share> {
    static std::string what(const Limits&) { return "true, false, or a number from 0 to 1"; }
    static bool read(const ConfigNode& node, const Limits&, Share& share) {
        if (bool all = false; ValueFormat<bool>::read(node, {}, all)) return share.value = all ? 1 : 0, true;
        return ValueFormat<double>::read(node, from_to(0, 1), share.value);
    }
    static void write(YAML::Emitter& out, const Share& share) {
        if (share.value == 0 || share.value == 1)
            ValueFormat<bool>::write(out, share.value == 1);
        else
            ValueFormat<double>::write(out, share.value);
    }
};

template <>
struct ValueFormat<BlockCount> {
    static std::string what(const Limits&) { return "true, false or a number of blocks"; }
    static bool read(const ConfigNode& node, const Limits&, BlockCount& value) {
        bool all = false;
        if (!ValueFormat<bool>::read(node, {}, all)) return ValueFormat<int64_t>::read(node, {.low = 0}, value.count);
        value.count = all ? BlockCount::all : 0;
        return true;
    }
    static void write(YAML::Emitter& out, BlockCount value) {
        if (value.count == 0 || value.count == BlockCount::all)
            ValueFormat<bool>::write(out, value.count > 0);
        else
            ValueFormat<int64_t>::write(out, value.count);
    }
};

template <>
struct ValueFormat<MemorySize> {
    static std::string what(const Limits&) { return "a size such as 24GiB or 48GB"; }
    static bool read(const ConfigNode& node, const Limits&, MemorySize& size) {
        if (node.kind != ConfigNode::Kind::scalar) return false;
        const std::optional<size_t> bytes = parse_bytes(node.text);
        if (!bytes || *bytes == 0) return false;
        size.bytes = static_cast<int64_t>(*bytes);
        return true;
    }
    static void write(YAML::Emitter& out, const MemorySize& size) {
        if (size.bytes == 0)
            out << YAML::Null;
        else
            out << exact_bytes(static_cast<size_t>(size.bytes));
    }
};

template <>
struct ValueFormat<std::string> {
    static std::string what(const Limits& limits) {
        return limits.choices.empty() ? "text" : fmt::format("one of {}", fmt::join(limits.choices, ", "));
    }
    static bool read(const ConfigNode& node, const Limits& limits, std::string& value) {
        const auto other = limits.also_spelled.find(node.text);
        const std::string& meant = other != limits.also_spelled.end() ? other->second : node.text;
        if (node.kind != ConfigNode::Kind::scalar || !limits.hold(meant)) return false;
        value = meant;
        return true;
    }
    static void write(YAML::Emitter& out, const std::string& value) {
        if (value.empty())
            out << YAML::Null;
        else
            out << value;
    }
};

/// A list, one value without brackets, or several values separated by commas; "none" is the empty list.
template <typename List>
struct ListFormat {
    using T = typename List::value_type;
    static std::string what(const Limits& limits) {
        std::string item = ValueFormat<T>::what(limits);
        if (item.starts_with("one of ")) item.erase(0, 7);
        return fmt::format("a list of {}; or none", item);
    }
    static bool read(const ConfigNode& node, const Limits& limits, List& values) {
        values.clear();
        if (node.kind == ConfigNode::Kind::scalar && node.text == "none") return true;
        const auto add = [&](const ConfigNode& item) {
            T value;
            const bool fits = ValueFormat<T>::read(item, limits, value);
            if (fits) values.insert(values.end(), value);
            return fits;
        };
        if (node.kind == ConfigNode::Kind::scalar) {
            for (size_t begin = 0, end = 0; end != node.text.npos; begin = end + 1) {
                end = node.text.find(',', begin);
                ConfigNode item = node;
                item.text = node.text.substr(begin, end == node.text.npos ? end : end - begin);
                item.text.erase(0, item.text.find_first_not_of(' '));
                item.text.erase(item.text.find_last_not_of(' ') + 1);
                if (!add(item)) return false;
            }
            return true;
        }
        return node.kind == ConfigNode::Kind::sequence && std::all_of(node.children.begin(), node.children.end(), add);
    }
    static void write(YAML::Emitter& out, const List& values) {
        out << YAML::Flow << YAML::BeginSeq;
        for (const T& value : values) ValueFormat<T>::write(out, value);
        out << YAML::EndSeq;
    }
};
template <typename T>
struct ValueFormat<std::set<T>> : ListFormat<std::set<T>> {};
template <>
struct ValueFormat<std::vector<std::string>> : ListFormat<std::vector<std::string>> {};

template <>
struct ValueFormat<std::map<std::string, std::string>> {
    static std::string what(const Limits&) { return "a map of names, each given once"; }
    static bool read(const ConfigNode& node, const Limits& limits, std::map<std::string, std::string>& values) {
        if (node.kind != ConfigNode::Kind::map) return false;
        values.clear();
        return std::all_of(node.children.begin(), node.children.end(), [&](const ConfigNode& entry) {
            std::string value;
            return ValueFormat<std::string>::read(entry, limits, value) && values.emplace(entry.key, value).second;
        });
    }
    static void write(YAML::Emitter& out, const std::map<std::string, std::string>& values) {
        out << YAML::Flow << YAML::BeginMap;
        for (const auto& [name, value] : values) out << YAML::Key << name << YAML::Value << value;
        out << YAML::EndMap;
    }
};

/// A map of values as YAML writes them.
template <>
struct ValueFormat<Json> {
    static std::string what(const Limits&) { return "a map of names, each given once"; }
    static bool read(const ConfigNode& node, const Limits&, Json& values) {
        if (node.kind != ConfigNode::Kind::map) return false;
        values = json_of(node);
        return values.size() == node.children.size();
    }
    static void write(YAML::Emitter& out, const Json& value) {
        out << YAML::Flow;
        if (value.is_object()) {
            out << YAML::BeginMap;
            for (const auto& [name, entry] : value.items()) {
                out << YAML::Key << name << YAML::Value;
                write(out, entry);
            }
            out << YAML::EndMap;
        } else if (value.is_array()) {
            out << YAML::BeginSeq;
            for (const Json& item : value) write(out, item);
            out << YAML::EndSeq;
        } else if (value.is_string()) {
            out << YAML::DoubleQuoted << value.get<std::string>();
        } else {
            out << value.dump();
        }
    }

  private:
    static Json json_of(const ConfigNode& node) {
        using Kind = ConfigNode::Kind;
        Json json;
        if (node.kind == Kind::map) {
            json = Json::object();
            for (const ConfigNode& entry : node.children) json[entry.key] = json_of(entry);
        } else if (node.kind == Kind::sequence) {
            json = Json::array();
            for (const ConfigNode& item : node.children) json.push_back(json_of(item));
        } else if (node.kind == Kind::scalar) {
            json = node.quoted ? Json() : Json::parse(node.text, nullptr, false);
            if (!json.is_number() && !json.is_boolean()) json = node.text;
        }
        return json;
    }
};

}  // namespace colonnade
