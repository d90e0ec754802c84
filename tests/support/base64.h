#pragma once
// Texts of golden files, which may be no valid UTF-8.

#include <string>
#include <string_view>

namespace colonnade {

inline std::string from_base64(std::string_view text) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    unsigned bits = 0;
    int count = 0;
    for (const char c : text) {
        if (c == '=') break;
        bits = bits << 6 | static_cast<unsigned>(digits.find(c));
        count += 6;
        if (count >= 8) out += static_cast<char>(bits >> (count -= 8) & 255);
    }
    return out;
}

}  // namespace colonnade
