#include "engine/device/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace colonnade {
namespace {

/// 0 if it is not known.
size_t columns_of(int descriptor) {
    winsize size{};
    return ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/// The value of an environment variable, or "".
std::string_view variable(const char* name) {
    const char* const value = std::getenv(name);
    return value ? value : "";
}

/// Length of the escape code that begins here (ESC [ ... letter), or 0.
size_t escape_length(std::string_view text) {
    if (!text.starts_with("\x1b[")) return 0;
    size_t end = 2;
    while (end < text.size() && (text[end] < '@' || text[end] > '~')) ++end;
    return std::min(end + 1, text.size());
}

struct Character {
    size_t bytes = 1;
    size_t columns = 1;
};

bool is_wide(uint32_t code) {
    constexpr std::array<std::pair<uint32_t, uint32_t>, 9> wide = {{{0x1100, 0x115F},
                                                                    {0x2E80, 0xA4CF},
                                                                    {0xAC00, 0xD7A3},
                                                                    {0xF900, 0xFAFF},
                                                                    {0xFE30, 0xFE6F},
                                                                    {0xFF00, 0xFF60},
                                                                    {0xFFE0, 0xFFE6},
                                                                    {0x1F300, 0x1FAFF},
                                                                    {0x20000, 0x3FFFD}}};
    for (const auto& [first, last] : wide)
        if (code >= first && code <= last) return true;
    return false;
}

/// The first character of a text, which is not empty.
Character first_character(std::string_view text) {
    if (const size_t escape = escape_length(text)) return {escape, 0};
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0xC0) return {};
    uint32_t code = lead & (lead < 0xE0 ? 0x1F : lead < 0xF0 ? 0x0F : 0x07);
    size_t bytes = 1;
    for (; bytes < text.size() && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80; ++bytes)
        code = code << 6 | (static_cast<unsigned char>(text[bytes]) & 0x3F);
    return {bytes, is_wide(code) ? 2u : 1u};
}

bool is_figure(std::string_view word) {
    if (word.starts_with('[')) return true;  // a bar
    const size_t sign = word.starts_with('-') || word.starts_with('+');
    if (word.size() > sign && word[sign] >= '0' && word[sign] <= '9') return true;
    word = word.substr(sign, word.find_first_of(" ,") - sign);
    return word == "nan" || word == "inf";
}

void wrap_line(std::string& out, std::string_view line, size_t columns, size_t indent) {
    // A break within the indent would gain nothing.
    size_t words = std::min(std::max(indent, line.find_first_not_of(' ')), line.size());
    for (size_t room = columns; display_width(line) > room; room = columns - indent, words = 0) {
        size_t end = line.rfind(' ', bytes_within(line, room));
        if (end == line.npos || end <= words) end = line.find(' ', words);  // after a word that is too long
        const size_t next = line.find_first_not_of(' ', end);
        if (next == line.npos) break;
        (out += line.substr(0, end)) += '\n';
        out.append(indent, ' ');
        line.remove_prefix(next);
    }
    out += line;
}

}  // namespace

bool is_terminal(int descriptor) {
    const std::string_view term = variable("TERM");
    return columns_of(descriptor) > 0 && isatty(descriptor) == 1 && !term.empty() && term != "dumb";
}

bool has_colours(int descriptor) {
    const std::string_view force = variable("CLICOLOR_FORCE");
    if (!variable("NO_COLOR").empty()) return false;
    return (!force.empty() && force != "0") || is_terminal(descriptor);
}

size_t terminal_columns(int descriptor) {
    const size_t columns = columns_of(descriptor);
    return columns > 0 ? columns : 80;
}

bool has_utf8() {
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
        if (const std::string value(variable(name)); !value.empty())
            return strcasestr(value.c_str(), "UTF-8") || strcasestr(value.c_str(), "UTF8");
    return false;
}

std::string styled(std::string_view text, Style style) {
    constexpr std::array<std::string_view, 5> codes = {"2", "1", "33", "1;31", "4"};
    std::string all = "\x1b[";
    all += codes[static_cast<size_t>(style)];
    return (all += 'm').append(text) += "\x1b[0m";
}

std::string bold_figures(std::string_view text) {
    std::string all;
    for (size_t begin = 0, end; begin < text.size(); begin = end) {
        const bool figure = is_figure(text.substr(begin));
        end = begin;
        do {  // words of one kind, with the spaces after them
            end = std::min(text.find(' ', end), text.size());
            end = std::min(text.find_first_not_of(' ', end), text.size());
        } while (end < text.size() && is_figure(text.substr(end)) == figure);
        all += styled(text.substr(begin, end - begin), figure ? Style::bold : Style::dim);
    }
    return all;
}

size_t display_width(std::string_view text) {
    size_t width = 0;
    while (!text.empty()) {
        const Character next = first_character(text);
        width += next.columns;
        text.remove_prefix(next.bytes);
    }
    return width;
}

size_t bytes_within(std::string_view text, size_t columns) {
    size_t bytes = 0;
    for (size_t used = 0; bytes < text.size();) {
        const Character next = first_character(text.substr(bytes));
        if (used += next.columns; used > columns) break;
        bytes += next.bytes;
    }
    return bytes;
}

std::string wrapped(std::string_view text, size_t columns, size_t indent) {
    if (columns <= 2 * indent) indent = 0;
    columns = std::max<size_t>(columns, 2);
    std::string out;
    while (true) {
        const size_t end = text.find('\n');
        wrap_line(out, text.substr(0, end), columns, indent);
        if (end == text.npos) return out;
        out += '\n';
        text.remove_prefix(end + 1);
    }
}

std::string with_coloured_mark(std::string_view text) {
    for (const auto& [mark, style] :
         {std::pair<std::string_view, Style>{"warning:", Style::warning}, {"note:", Style::dim}})
        if (text.starts_with(mark)) return styled(mark, style).append(text.substr(mark.size()));
    return std::string(text);
}

std::string for_terminal(std::string_view text, int descriptor, size_t indent) {
    std::string shown(text);
    if (is_terminal(descriptor)) shown = wrapped(text, terminal_columns(descriptor) - 1, indent);
    return has_colours(descriptor) ? with_coloured_mark(shown) : shown;
}

}  // namespace colonnade
