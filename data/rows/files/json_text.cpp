#include "data/rows/files/json_text.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

namespace colonnade {

void write_json_text(std::string_view text, std::string& json) {
    json += '"';
    const char* plain = text.data();
    const char* end = text.data() + text.size();
    for (const char* at = plain; at != end; ++at) {
        const auto c = static_cast<unsigned char>(*at);
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        json.append(plain, at);
        plain = at + 1;
        if (c == '"' || c == '\\')
            (json += '\\') += *at;
        else if (c == '\n')
            json += "\\n";
        else
            fmt::format_to(std::back_inserter(json), "\\u{:04x}", c);
    }
    json.append(plain, end);
    json += '"';
}

template <typename T>
static void write_real(T value, std::string& json) {
    if (std::isnan(value)) {
        json += "NaN";
    } else if (std::isinf(value)) {
        json += value < 0 ? "-Infinity" : "Infinity";
    } else {
        const size_t begin = json.size();
        fmt::format_to(std::back_inserter(json), "{}", value);
        if (json.find_first_of(".e", begin) == json.npos) json += ".0";
    }
}

void write_json_real(double value, std::string& json) {
    write_real(value, json);
}

void write_json_real(float value, std::string& json) {
    write_real(value, json);
}

}  // namespace colonnade
