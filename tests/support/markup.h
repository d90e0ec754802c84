#pragma once
// A strict look at HTML and SVG as our pages write them: every element is closed, in order; attributes are quoted; `<`
// and `&` of a text are escaped. What <script> and <style> contain is not looked at.

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade {

/// What is wrong with the markup, with what follows there; empty if nothing is.
inline std::string markup_trouble(std::string_view text) {
    std::vector<std::string> open;
    size_t at = 0;
    const auto trouble = [&](const char* what) { return fmt::format("{} at: {}", what, text.substr(at, 80)); };
    const auto bad_entity = [](std::string_view part) {
        for (size_t i = part.find('&'); i != part.npos; i = part.find('&', i + 1)) {
            const std::string_view entity = part.substr(i, part.find(';', i) - i);
            if (entity != "&amp" && entity != "&lt" && entity != "&gt" && entity != "&quot" && entity != "&#39")
                return true;
        }
        return false;
    };
    if (text.starts_with("<!DOCTYPE html>")) at = 15;
    while (at < text.size()) {
        const size_t tag = std::min(text.find('<', at), text.size());
        const std::string_view content = text.substr(at, tag - at);
        if (bad_entity(content) || content.find('>') != content.npos) return trouble("a text that is not escaped");
        if ((at = tag) == text.size()) break;
        const bool closing = text.substr(at, 2) == "</";
        size_t end = at + (closing ? 2 : 1);
        const size_t name_begin = end;
        while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '-')) ++end;
        const std::string name(text.substr(name_begin, end - name_begin));
        if (name.empty()) return trouble("a tag without a name");
        bool empty = false;
        while (end < text.size() && text[end] != '>') {
            if (text[end] == '/') {
                empty = true;
                ++end;
                continue;
            }
            if (text[end] == ' ' || text[end] == '\n') {
                ++end;
                continue;
            }
            const size_t quote = text.find('"', end), close = quote == text.npos ? quote : text.find('"', quote + 1);
            if (close == text.npos || text[quote - 1] != '=') return trouble("an attribute without quotes");
            const std::string_view value = text.substr(quote + 1, close - quote - 1);
            if (value.find('<') != value.npos || bad_entity(value)) return trouble("an attribute that is not escaped");
            end = close + 1;
        }
        if (end >= text.size()) return trouble("a tag without an end");
        if (closing) {
            if (open.empty() || open.back() != name) return trouble("a tag that closes another element");
            open.pop_back();
        } else if (name == "script" || name == "style") {
            const size_t last = text.find("</" + name + ">", end);
            if (last == text.npos) return trouble("an element that is not closed");
            end = last + name.size() + 2;
        } else if (!empty) {
            open.push_back(name);
        }
        at = end + 1;
    }
    return open.empty() ? "" : fmt::format("<{}> is not closed", open.back());
}

/// How often `part` occurs.
inline int64_t occurrences(std::string_view text, std::string_view part) {
    int64_t count = 0;
    for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++count;
    return count;
}

}  // namespace colonnade
