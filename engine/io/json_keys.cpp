#include "engine/io/json_keys.h"

#include <cmath>

#include "engine/device/error.h"

namespace colonnade {

std::string JsonRange::text() const {
    std::string text;
    if (std::isfinite(low)) text += fmt::format(" >= {}", low);
    if (std::isfinite(below)) text += fmt::format("{} < {}", text.empty() ? "" : " and", below);
    return text;
}

JsonKeys::JsonKeys(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) fail(Exit::data, "{}: expected an object, found {:.100}", where_, json.dump());
}

const Json* JsonKeys::find(const std::string& key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonKeys::is_null(const std::string& key) const {
    return json_.contains(key) && json_[key].is_null();
}

void JsonKeys::refuse(const std::string& key, const std::string& expected) const {
    const Json* const found = find(key);
    if (!found) fail(Exit::data, "{}: key '{}' is missing; expected {}", where_, key, expected);
    fail(Exit::data, "{}: key '{}' should be {}, found {:.100}", where_, key, expected, found->dump());
}

template <typename T>
T JsonKeys::value(const std::string& key, const std::optional<T>& otherwise, const std::string& expected,
                  bool (*fits)(const Json&)) const {
    const Json* const found = find(key);
    if (!found && otherwise) return *otherwise;
    if (!found || !fits(*found)) refuse(key, expected);
    return found->get<T>();
}

int64_t JsonKeys::integer(const std::string& key, std::optional<int64_t> otherwise, const JsonRange& range) const {
    const std::string expected = "an integer" + range.text();
    const auto value =
        this->value<int64_t>(key, otherwise, expected, [](const Json& j) { return j.is_number_integer(); });
    const Json* const found = find(key);
    if (found && found->is_number_unsigned() && found->get<uint64_t>() > uint64_t{INT64_MAX})
        refuse(key, range.text().empty() ? "an integer below 2^63" : expected);
    if (found && !range.holds(static_cast<double>(value))) refuse(key, expected);
    return value;
}

double JsonKeys::number(const std::string& key, std::optional<double> otherwise, const JsonRange& range) const {
    const std::string expected = "a number" + range.text();
    const auto value = this->value<double>(key, otherwise, expected, [](const Json& j) { return j.is_number(); });
    if (find(key) && !range.holds(value)) refuse(key, expected);
    return value;
}

bool JsonKeys::boolean(const std::string& key, std::optional<bool> otherwise) const {
    return value<bool>(key, otherwise, "true or false", [](const Json& j) { return j.is_boolean(); });
}

std::string JsonKeys::text(const std::string& key, const std::optional<std::string>& otherwise) const {
    return value<std::string>(key, otherwise, "a string", [](const Json& j) { return j.is_string(); });
}

}  // namespace colonnade
