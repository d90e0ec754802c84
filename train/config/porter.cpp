#include "train/config/porter.h"

#include <fmt/ranges.h>

namespace colonnade {
namespace {

bool from_command_line(const ConfigNode& node) {
    return node.where.starts_with("argument ");
}

}  // namespace

bool is_off(const ConfigNode& node) {
    if (node.kind == ConfigNode::Kind::null) return true;
    if (node.kind != ConfigNode::Kind::scalar) return node.children.empty();
    double number = 1;
    if (ValueFormat<double>::read(node, {}, number)) return number == 0;
    bool on = true;
    if (ValueFormat<bool>::read(node, {}, on)) return !on;
    return node.text.empty() || node.text == "none" || node.text == "None";
}

bool is_true(const ConfigNode& node) {
    bool on = false;
    return ValueFormat<bool>::read(node, {}, on) && on;
}

const ConfigNode* Porter::find(const std::string& key) const {
    for (const ConfigNode& entry : root_.children)
        if (entry.kind != ConfigNode::Kind::null && canonical_key(entry.key) == key) return &entry;
    return nullptr;
}

void Porter::set(const std::string& key, ConfigNode value, const ConfigNode& from) {
    if (const ConfigNode* const present = find(key);
        present && from_command_line(*present) >= from_command_line(from)) {
        if (from_command_line(*present) == from_command_line(from) && present->found() != value.found())
            reading_.problems.add(from.where, "'{}' means {}: {}, but {} says {}", from.key, key, value.found(),
                                  present->where, present->found());
        return;
    }
    replace(key, std::move(value), from);
}

void Porter::replace(const std::string& key, ConfigNode value, const ConfigNode& from) {
    value.key = key;
    value.key_where = from.key_where;
    value.where = from.where;
    const std::string text = value.kind == ConfigNode::Kind::scalar ? value.text : value.found();
    note(from, from.key == key ? "of a data set is read for all" : fmt::format("is read as {}: {}", key, text));
    const auto place = std::find_if(root_.children.begin(), root_.children.end(),
                                    [&](const ConfigNode& entry) { return canonical_key(entry.key) == key; });
    if (place == root_.children.end())
        root_.children.push_back(std::move(value));
    else
        *place = std::move(value);
}

void Porter::set(const std::string& key, const std::string& text, const ConfigNode& from) {
    set(key, scalar(text, from), from);
}

void Porter::idle(const ConfigNode& from, const std::string& why) {
    idle_.push_back(why.empty() ? from.key : fmt::format("{} ({})", from.key, why));
}

void Porter::note(const ConfigNode& from, const std::string& text) {
    reading_.notices.push_back(fmt::format("{}: '{}' {}", from.key_where, from.key, text));
}

void Porter::refuse(const ConfigNode& from, const std::string& way_out) {
    reading_.unreadable.insert(canonical_key(from.key));
    reading_.problems.add(from.where, "{}: {} is not supported: {}", from.key, from.found(), way_out);
}

std::string Porter::idle_keys() const {
    return fmt::format("{}", fmt::join(idle_, ", "));
}

ConfigNode Porter::scalar(const std::string& text, const ConfigNode& from) {
    return {.kind = ConfigNode::Kind::scalar, .text = text, .where = from.where};
}

ConfigNode Porter::list(std::vector<ConfigNode> items, const ConfigNode& from) {
    return {.kind = ConfigNode::Kind::sequence, .where = from.where, .children = std::move(items)};
}

ConfigNode Porter::map(std::vector<std::pair<std::string, ConfigNode>> entries, const ConfigNode& from) {
    ConfigNode node{.kind = ConfigNode::Kind::map, .where = from.where};
    for (auto& [key, value] : entries) {
        value.key = key;
        value.key_where = from.where;
        node.children.push_back(std::move(value));
    }
    return node;
}

}  // namespace colonnade
