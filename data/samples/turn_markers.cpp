#include "data/samples/turn_markers.h"

#include <algorithm>

namespace colonnade {
namespace {

constexpr std::string_view wide_bar = "\xEF\xBD\x9C";  // U+FF5C, in DeepSeek's markers

/// "<|name|>", with small letters, digits and _ in the name.
bool begins_with_bars(std::string_view text) {
    if (!text.starts_with("<|")) return false;
    const auto named = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
    const auto end = std::ranges::find_if_not(text.substr(2), named);
    const auto at = static_cast<size_t>(end - text.begin());
    return at > 2 && text.substr(at).starts_with("|>");
}

bool begins_with_marker(std::string_view text) {
    if (text.front() == '[') return text.starts_with("[INST]") || text.starts_with("[/INST]");
    return begins_with_bars(text) || text.starts_with("<start_of_turn>") || text.starts_with("<end_of_turn>") ||
           text.starts_with("<<SYS>>") || text.substr(1).starts_with(wide_bar);
}

}  // namespace

bool has_turn_marker(std::string_view text) {
    for (const char opening : {'<', '['})
        for (size_t at = text.find(opening); at != text.npos; at = text.find(opening, at + 1))
            if (begins_with_marker(text.substr(at))) return true;
    return false;
}

}  // namespace colonnade
