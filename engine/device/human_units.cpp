#include "engine/device/human_units.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

namespace colonnade {

std::string human_bytes(size_t bytes) {
    static const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes);
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < std::size(units)) value /= 1024, ++unit;
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, units[unit]);
}

namespace {

struct Unit {
    const char* name;
    size_t bytes;
};
/// The largest first; of equal ones the first is written.
constexpr Unit byte_units[] = {{"TiB", size_t{1} << 40},
                               {"TB", 1'000'000'000'000},
                               {"GiB", size_t{1} << 30},
                               {"GB", 1'000'000'000},
                               {"MiB", size_t{1} << 20},
                               {"MB", 1'000'000},
                               {"KiB", size_t{1} << 10},
                               {"kB", 1000},
                               {"KB", 1000},
                               {"B", 1}};

}  // namespace

std::optional<size_t> parse_bytes(std::string_view text) {
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || !(number >= 0)) return {};
    std::string_view name = text.substr(static_cast<size_t>(end - text.data()));
    name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
    for (const Unit& unit : byte_units) {
        if (name != unit.name) continue;
        const double bytes = std::round(number * static_cast<double>(unit.bytes));
        return bytes <= 0x1p62 ? std::optional(static_cast<size_t>(bytes)) : std::nullopt;
    }
    return {};
}

std::string exact_bytes(size_t bytes) {
    for (const Unit& unit : byte_units)
        if (bytes >= unit.bytes && bytes % unit.bytes == 0) return fmt::format("{}{}", bytes / unit.bytes, unit.name);
    return "0B";
}

std::string human_duration(double seconds) {
    if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1e3);
    if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
    const auto whole = static_cast<int64_t>(std::llround(seconds));
    const int64_t minutes = whole / 60, hours = whole / 3600, days = whole / 86400;
    if (hours < 1) return fmt::format("{}m {:02}s", minutes, whole % 60);
    if (days < 1) return fmt::format("{}h {:02}m", hours, minutes % 60);
    return fmt::format("{}d {:02}h", days, hours % 24);
}

std::string human_count(double count) {
    if (count < 999.5) return fmt::format("{:.0f}", count);
    const char* suffixes[] = {"k", "M", "G", "T"};
    size_t i = 0;
    for (count /= 1e3; count >= 999.5 && i < 3; ++i) count /= 1e3;
    return fmt::format("{:.{}f}{}", count, count < 9.995 ? 2 : count < 99.95 ? 1 : 0, suffixes[i]);
}

}  // namespace colonnade
