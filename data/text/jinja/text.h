#pragma once
// Text that knows where each byte came from: the template itself, or a string of its input.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace colonnade::jinja {

/// Where a run of bytes came from. `origin` is an index of Rendered::origins; `generation` is the number of the
/// {% generation %} block that wrote it (0: none).
struct Mark {
    uint32_t origin = 0;
    uint32_t generation = 0;
    bool operator==(const Mark&) const = default;
};

/// A run ends before byte `end` and begins at the end of the run before it.
struct Run {
    size_t end = 0;
    Mark mark;
};

/// UTF-8 bytes with their marks. Runs cover all bytes; neighbours differ.
class Text {
  public:
    Text() = default;
    Text(std::string_view bytes, Mark mark) { append(bytes, mark); }

    const std::string& bytes() const { return bytes_; }
    const std::vector<Run>& runs() const { return runs_; }
    size_t size() const { return bytes_.size(); }
    bool empty() const { return bytes_.empty(); }
    Mark mark_at(size_t byte) const;  ///< mark of the run that holds the byte; of an empty text: none

    void append(std::string_view bytes, Mark mark);
    void append(const Text& other) { append_part(other, 0, other.size()); }
    void append_part(const Text& other, size_t begin, size_t end);
    Text part(size_t begin, size_t end) const;
    void set_generation(uint32_t generation);  ///< marks all bytes that no inner block has marked

  private:
    std::string bytes_;
    std::vector<Run> runs_;
};

/// Code points of UTF-8. Ill-formed bytes count as one character each.
size_t character_length(std::string_view text, size_t at);          ///< bytes of the character at a byte offset
char32_t character_at(std::string_view text, size_t at);            ///< its code point
size_t count_characters(std::string_view text);                     ///< number of characters
size_t byte_of_character(std::string_view text, size_t character);  ///< offset; size() behind the last character
bool is_python_space(char32_t character);                           ///< str.isspace() of Python
bool is_python_printable(char32_t character);                       ///< str.isprintable() of Python
std::string title_case(std::string_view text);                      ///< full Unicode mapping, no language
std::string upper_case(std::string_view text);                      ///< full Unicode mapping, no language
std::string lower_case(std::string_view text);                      ///< full Unicode mapping, no language

/// Place of the first `part` at byte `from` or behind it, or npos. Takes linear time, whatever the texts are.
size_t find_text(std::string_view text, std::string_view part, size_t from = 0);

/// Begin and end of a text without white space (`characters` empty) or without these characters at its ends.
struct Trimmed {
    size_t begin = 0, end = 0;
};
enum class Side { left, right, both };
Trimmed trimmed(std::string_view text, std::string_view characters, Side side);

}  // namespace colonnade::jinja
