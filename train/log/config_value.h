#pragma once
// A value of the resolved config, as the logs of other programs want it.

#include <charconv>
#include <string>
#include <variant>

#include "engine/io/json.h"

namespace colonnade {

using ConfigValue = std::variant<bool, double, std::string>;

/// `yaml`: a value as Key::text() writes it.
inline ConfigValue config_value(const std::string& yaml) {
    if (yaml == "true" || yaml == "false") return yaml == "true";
    double number = 0;
    const auto [end, error] = std::from_chars(yaml.data(), yaml.data() + yaml.size(), number);
    if (error == std::errc() && end == yaml.data() + yaml.size()) return number;
    return yaml == "~" ? "" : yaml;
}

inline std::string json_of(const ConfigValue& value) {
    return std::visit([](const auto& v) { return Json(v).dump(-1, ' ', false, Json::error_handler_t::replace); },
                      value);
}

}  // namespace colonnade
