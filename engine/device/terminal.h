#pragma once
// What a terminal can show: its width, colours and characters. Text for anything else stays plain.
//
// Colours follow NO_COLOR (https://no-color.org) and CLICOLOR_FORCE (https://bixense.com/clicolors).

#include <cstddef>
#include <string>
#include <string_view>

namespace colonnade {

/// A terminal that can redraw a line: TERM is set, and not to "dumb", and its width is known. (That of the terminals
/// that mpirun gives to its ranks is not: what they write may go to a file.)
bool is_terminal(int descriptor);
/// A terminal, unless NO_COLOR is set; anything if CLICOLOR_FORCE is set and not 0.
bool has_colours(int descriptor);
/// Its width now; 80 if that is not known.
size_t terminal_columns(int descriptor);
/// LC_ALL, LC_CTYPE or LANG, the first that is set, names UTF-8.
bool has_utf8();

/// The palette.
enum class Style { dim, bold, warning, error, underline };
std::string styled(std::string_view text, Style style);
/// Figures bold, words dim: "loss 2.31, 12.3k tokens/s".
std::string bold_figures(std::string_view text);

/// Columns that the text takes: escape codes take none, East Asian characters two.
size_t display_width(std::string_view text);
/// Bytes of the characters at the beginning that fit into `columns`.
size_t bytes_within(std::string_view text, size_t columns);
/// Breaks the lines at spaces, so that none has more than `columns`, but for longer words: a path stays whole. What
/// follows a break begins with `indent` spaces.
std::string wrapped(std::string_view text, size_t columns, size_t indent);
/// A text that begins with "warning:" or "note:", with that word in its colour.
std::string with_coloured_mark(std::string_view text);
/// Both, as far as the descriptor is a terminal or has colours.
std::string for_terminal(std::string_view text, int descriptor, size_t indent);

}  // namespace colonnade
