#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

namespace colonnade {

/// A name and a measured number or a count, for the log.
using Metric = std::pair<std::string, std::variant<double, int64_t>>;

}  // namespace colonnade
