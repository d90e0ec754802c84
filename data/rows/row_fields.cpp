#include "data/rows/row_fields.h"

#include <algorithm>
#include <cmath>

#include "engine/device/error.h"

namespace colonnade {

std::string shown(const Json& value) {
    if (value.is_number_float() && !std::isfinite(value.get<double>()))
        return std::isnan(value.get<double>()) ? "NaN" : value.get<double>() > 0 ? "Infinity" : "-Infinity";
    std::string text = value.dump(-1, ' ', true);
    return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

std::string shown_key(const std::string& key) {
    const std::string quoted = shown(key);
    return quoted.ends_with('"') ? quoted.substr(1, quoted.size() - 2) : quoted.substr(1);
}

std::string found_keys(const Json& object) {
    std::vector<std::string> keys;
    for (const auto& item : object.items()) {
        if (keys.size() == 20) return fmt::format("{}, ... ({} keys)", fmt::join(keys, ", "), object.size());
        keys.push_back(shown(item.key()));
    }
    return keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", "));
}

void require_finite(const Json& value, const std::string& where) {
    if (value.is_number_float() && !std::isfinite(value.get<double>()))
        fail(Exit::data, "{}: expected a finite number, found {}", where, shown(value));
    if (value.is_structured())
        for (const Json& item : value) require_finite(item, where);
}

Json parsed_container(const Json& value, const std::string& where) {
    Json parsed = value.is_string() ? parse_json(value.get_ref<const std::string&>(), where) : value;
    if (!parsed.is_structured())
        fail(Exit::data, "{}: expected a list or an object, or a string of JSON that holds one, found {}", where,
             shown(value));
    require_finite(parsed, where);
    return parsed;
}

std::optional<float> weight_from(const Json& value) {
    if (!value.is_number()) return std::nullopt;
    const auto number = value.get<double>();
    if (number != 0 && !(number >= 1e-9 && number <= 1e9)) return std::nullopt;
    return static_cast<float>(number);
}

void refuse_weight(const Json& value, const std::string& where) {
    const bool negative = value.is_number() && value.get<double>() < 0;
    fail(Exit::data, "{}: expected a weight, 0 or a number from 1e-9 to 1e9, found {}{}", where, shown(value),
         negative ? "; a loss with a negative weight has no minimum: answers to avoid belong in stage dpo" : "");
}

RowFields::RowFields(const Json& object, const Columns& columns, std::string where)
    : object_(object), columns_(columns), where_(std::move(where)) {
    if (!object.is_object()) fail(Exit::data, "{}: expected an object, found {}", where_, object.type_name());
}

std::string RowFields::name(const std::string& key) const {
    const auto renamed = columns_.find(key);
    return renamed == columns_.end() ? key : renamed->second;
}

const Json* RowFields::find(const std::string& key) const {
    // A key of the file that is read under another name is not read under its own as well.
    const bool taken = !columns_.contains(key) &&
                       std::ranges::any_of(columns_, [&](const auto& renamed) { return renamed.second == key; });
    const auto item = object_.find(name(key));
    if (taken || item == object_.end() || item->is_null()) return nullptr;
    read_.push_back(&*item);
    return &*item;
}

const Json* RowFields::find_filled(const std::string& key) const {
    const Json* value = find(key);
    const bool empty = value && (value->is_string() ? value->get_ref<const std::string&>().empty()
                                                    : value->is_structured() && value->empty());
    return empty ? nullptr : value;
}

std::vector<RowFields::Entry> RowFields::unread() const {
    std::vector<Entry> entries;
    for (auto item = object_.begin(); item != object_.end(); ++item)
        if (!item->is_null() && std::ranges::find(read_, &*item) == read_.end()) entries.push_back({item.key(), *item});
    return entries;
}

const Json& RowFields::at(const std::string& key) const {
    if (const Json* value = find(key)) return *value;
    const char* state = object_.contains(name(key)) ? "is null" : "is missing";
    const std::string ours = name(key) == key ? "" : fmt::format(" (column '{}')", key);
    fail(Exit::data, "{}: key '{}'{} {}; found keys: {}", where_, name(key), ours, state, found_keys(object_));
}

void RowFields::mistyped(const std::string& key, const char* expected) const {
    fail(Exit::data, "{}: key '{}': expected {}, found {}", where_, name(key), expected, at(key).type_name());
}

const Json& RowFields::list(const std::string& key) const {
    if (!at(key).is_array()) mistyped(key, "a list");
    return at(key);
}

const Json& RowFields::filled_list(const std::string& key) const {
    if (list(key).empty()) fail(Exit::data, "{}: key '{}': the list is empty", where_, name(key));
    return list(key);
}

float RowFields::weight(const std::string& key) const {
    const std::optional<float> weight = weight_from(at(key));
    if (!weight) refuse_weight(at(key), place(key));
    return *weight;
}

std::string RowFields::text(const std::string& key) const {
    if (!at(key).is_string()) mistyped(key, "a string");
    return at(key).get<std::string>();
}

}  // namespace colonnade
