#include "data/rows/files/json_rows.h"

#include <algorithm>
#include <cstring>

#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr size_t block_bytes = size_t{256} << 10;
constexpr const char* space = " \t\r\n";

bool is_blank(std::string_view text) {
    return text.find_first_not_of(space) == text.npos;
}

/// A byte for an error message.
std::string shown(char c) {
    return c > ' ' && c <= '~' ? fmt::format("'{}'", c) : fmt::format("byte {:#04x}", static_cast<unsigned char>(c));
}

/// Finds the end of a JSON value by its brackets and strings. The value may arrive in pieces.
class ValueScan {
  public:
    /// Takes the next bytes. Returns how many belong to the value; it is done(), or all of them do.
    size_t take(std::string_view bytes) {
        for (size_t i = 0; i < bytes.size(); ++i) {
            if (quoted_) {
                i = end_of_string(bytes, i);
                if (i < bytes.size() && depth_ == 0) return done_ = true, i + 1;
                continue;
            }
            switch (bytes[i]) {
                case '"':
                    quoted_ = true;
                    break;
                case '{':
                case '[':
                    ++depth_;
                    break;
                case '}':
                case ']':
                    if (depth_ == 0) return done_ = true, i;  // of the list around a number
                    if (--depth_ == 0) return done_ = true, i + 1;
                    break;
                case ',':
                case ' ':
                case '\t':
                case '\r':
                case '\n':
                    if (depth_ == 0) return done_ = true, i;
                    break;
                default:
                    break;
            }
        }
        return bytes.size();
    }
    bool done() const { return done_; }

  private:
    /// Position of the closing quote, or the end of the bytes.
    size_t end_of_string(std::string_view bytes, size_t i) {
        for (; i < bytes.size(); ++i) {
            if (escaped_) {
                escaped_ = false;
                continue;
            }
            if (bytes[i] != '"' && bytes[i] != '\\') continue;
            if (bytes[i] == '"') return quoted_ = false, i;
            escaped_ = true;
        }
        return i;
    }

    int64_t depth_ = 0;
    bool quoted_ = false, escaped_ = false, done_ = false;
};

}  // namespace

JsonRows::JsonRows(std::unique_ptr<ByteSource> bytes) : bytes_(std::move(bytes)) {
    if (bytes_->head().starts_with("\xEF\xBB\xBF")) {  // byte order mark
        refill();
        begin_ += 3;
    }
    form_ = detect();
    if (form_ == Form::objects || (form_ == Form::lines && is_single_line())) refuse_wrapper();
}

bool JsonRows::refill() {
    if (end_of_file_) return false;
    if (begin_ > 0) std::memmove(text_.data(), text_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    if (text_.size() < end_ + block_bytes) text_.resize(std::max(end_ + block_bytes, 2 * text_.size()));
    const size_t got =
        bytes_->read(text_.data() + end_, block_bytes, line_ > 1 ? fmt::format(" past line {}", line_) : "");
    end_ += got;
    end_of_file_ = got == 0;
    return got > 0;
}

/// The end of the line that starts at begin_: of its newline, or of the file.
size_t JsonRows::end_of_line() {
    for (size_t searched = 0;;) {
        const char* from = text_.data() + begin_ + searched;
        const size_t left = end_ - begin_ - searched;
        if (const void* newline = left ? std::memchr(from, '\n', left) : nullptr)
            return static_cast<size_t>(static_cast<const char*>(newline) - text_.data());
        searched = end_ - begin_;
        if (searched > row_limit + 1 || !refill()) return end_;
    }
}

JsonRows::Form JsonRows::detect() {
    const char first = skip_space();
    if (first == '[') return Form::list;
    if (first != '{') return Form::lines;
    const size_t end = end_of_line();
    const std::string_view line(text_.data() + begin_, end - begin_);
    ValueScan scan;
    if (scan.take(line), scan.done() || line.size() > row_limit) return Form::lines;
    for (size_t next = line.size();; refill()) {  // refill() leaves begin_ + next at the same byte
        const std::string_view rest = std::string_view(text_.data(), end_).substr(begin_ + next);
        if (const size_t at = rest.find_first_not_of(space); at != rest.npos)
            return rest[at] == '{' ? Form::lines : Form::objects;
        if (end_of_file_ || rest.size() > row_limit) return Form::lines;
    }
}

/// Nothing follows the first line, or it is too long to be a row.
bool JsonRows::is_single_line() {
    const size_t end = end_of_line();
    if (end - begin_ > row_limit) return true;
    for (size_t next = end - begin_;; refill()) {  // refill() leaves begin_ + next at the same byte
        const std::string_view rest = std::string_view(text_.data(), end_).substr(begin_ + next);
        if (!is_blank(rest) || rest.size() > row_limit) return false;
        if (end_of_file_) return true;
    }
}

/// {"data": [{...}, ...]}: one value that may be as long as the file.
void JsonRows::refuse_wrapper() {
    std::string_view text(text_.data() + begin_, end_ - begin_);
    const auto take = [&](char c) {
        text.remove_prefix(std::min(text.find_first_not_of(space), text.size()));
        const bool found = text.starts_with(c);
        if (found) text.remove_prefix(1);
        return found;
    };
    if (!take('{') || !take('"')) return;
    const std::string_view key = text.substr(0, text.find('"'));
    for (const std::string_view wrapper : {"data", "rows", "train", "examples", "instances", "items", "samples"}) {
        if (key != wrapper) continue;
        text.remove_prefix(key.size());
        if (take('"') && take(':') && take('[') && take('{'))
            fail(Exit::data,
                 "{}: the rows are in a list under the key '{}'; expected a list alone, or one object per line: "
                 "jq -c '.{}[]' OLD > NEW.jsonl",
                 path(), key, key);
    }
}

bool JsonRows::next(std::string& row, int64_t& number) {
    const bool found = form_ == Form::lines ? next_line(row) : next_value(row);
    number = row_;
    return found;
}

bool JsonRows::next_line(std::string& row) {
    for (size_t blank = 0;;) {
        const size_t end = end_of_line();
        const bool whole = end < end_;  // ends in a newline
        const std::string_view line(text_.data() + begin_, end - begin_);
        row_ = line_;
        if (line.size() > row_limit) fail(Exit::data, "{}:{}: the line is longer than 16 MiB", path(), line_);
        begin_ = end + (whole ? 1 : 0);
        line_ += whole ? 1 : 0;
        if (!is_blank(line)) {
            row = line;
            return true;
        }
        blank += line.size() + 1;
        if (!whole) return false;
        if (blank > row_limit) fail(Exit::data, "{}:{}: more than 16 MiB of blank lines", path(), row_);
    }
}

/// Skips white space, counts lines, and returns the next byte; NUL at the end of the file.
char JsonRows::skip_space() {
    for (size_t skipped = 0; begin_ < end_ || refill();) {
        const char c = text_[begin_];
        if (!std::strchr(space, c) || c == '\0') return c;
        line_ += c == '\n' ? 1 : 0;
        ++begin_;
        if (++skipped > row_limit) refuse("more than 16 MiB of white space");
    }
    return '\0';
}

void JsonRows::refuse(const std::string& what) const {
    fail(Exit::data, "{}:{}: {}", path(), line_, what);
}

/// Goes to the next element of the list; false at its end.
bool JsonRows::next_element() {
    if (end_of_list_) return false;
    const bool first = row_ == 0;
    char c = skip_space();
    if (first) {
        ++begin_;  // the [
        c = skip_space();
    } else if (c == ',') {
        ++begin_;
        if (c = skip_space(); c == ']') refuse(fmt::format("a row is missing between row {}, ',' and ']'", row_));
    } else if (c != ']') {
        refuse(begin_ == end_ ? fmt::format("the file ends after row {}, expected ',' or ']': it is incomplete", row_)
                              : fmt::format("found {} after row {} of the list, expected ',' or ']'", shown(c), row_));
    }
    if (c != ']') return true;
    ++begin_;
    end_of_list_ = true;
    if (skip_space(); begin_ < end_) refuse("more text follows the list of rows; expected the end of the file");
    return false;
}

bool JsonRows::next_value(std::string& row) {
    if (form_ == Form::list && !next_element()) return false;
    const char c = skip_space();
    if (form_ == Form::objects && begin_ == end_) return false;
    if (form_ == Form::objects && c != '{')
        refuse(fmt::format("found {} after row {}, expected the next object", shown(c), row_));
    ++row_;
    const size_t end = end_of_value();
    row.assign(text_, begin_, end - begin_);
    line_ += std::count(row.begin(), row.end(), '\n');
    begin_ = end;
    return true;
}

/// The end of the value that starts at begin_.
size_t JsonRows::end_of_value() {
    ValueScan scan;
    for (size_t taken = 0;;) {
        taken += scan.take({text_.data() + begin_ + taken, end_ - begin_ - taken});
        if (taken > row_limit)
            fail(Exit::data, "{}: row {}: the row, at line {}, is longer than 16 MiB", path(), row_, line_);
        if (scan.done()) return begin_ + taken;
        if (!refill())
            fail(Exit::data, "{}: row {}: the file ends within the row that begins at line {}: it is incomplete",
                 path(), row_, line_);
    }
}

}  // namespace colonnade
