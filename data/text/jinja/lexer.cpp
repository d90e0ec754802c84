#include "data/text/jinja/lexer.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string_view>

#include "data/text/jinja/text.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade::jinja {
namespace {

constexpr size_t kSource = limits::template_bytes;

/// Line ends become \n; one at the very end of the source is dropped.
std::string normalized(const std::string& source) {
    std::string text;
    for (size_t i = 0; i < source.size(); ++i) {
        if (source[i] != '\r') {
            text += source[i];
            continue;
        }
        text += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
    if (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

bool is_name_byte(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80) != 0;
}
bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

class Lexer {
  public:
    Lexer(const std::string& source, const std::string& name) : source_(normalized(source)), name_(name) {}

    std::vector<Token> run() {
        while (at_ < source_.size()) {
            const size_t open = find_tag();
            const bool tag = open != std::string::npos;
            data(tag ? open : source_.size());
            if (!tag) break;
            at_ = open;
            if (source_[open + 1] == '#')
                comment();
            else
                code(source_[open + 1] == '%');
        }
        push(Token::Type::end, "");
        return std::move(tokens_);
    }

  private:
    template <typename... Args>
    [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
        const Place here = place();
        fail(Exit::config, "{}:{}:{}: {}", name_, here.line, here.column,
             fmt::format(format, std::forward<Args>(args)...));
    }

    /// Place of at_. Places are asked for in rising order, so that each byte is counted once.
    Place place() {
        for (; counted_ < std::min(at_, source_.size()); ++counted_) {
            if (source_[counted_] == '\n')
                counted_place_ = {counted_place_.line + 1, 1};
            else if ((source_[counted_] & 0xC0) != 0x80)
                ++counted_place_.column;
        }
        return counted_place_;
    }
    void push(Token::Type type, std::string text) { tokens_.push_back({type, std::move(text), place()}); }
    char peek(size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0'; }

    size_t find_tag() const {
        for (size_t open = source_.find('{', at_); open != std::string::npos; open = source_.find('{', open + 1)) {
            const char next = open + 1 < source_.size() ? source_[open + 1] : '\0';
            if (next == '{' || next == '%' || next == '#') return open;
        }
        return std::string::npos;
    }

    /// Emits the template's own text before the tag at `end`, shortened as the tag asks.
    void data(size_t end) {
        std::string_view text = std::string_view(source_).substr(at_, end - at_);
        const char kind = end + 1 < source_.size() ? source_[end + 1] : '\0';
        const char sign = end + 2 < source_.size() ? source_[end + 2] : '\0';
        if (end < source_.size() && sign == '-') {
            text = text.substr(0, trimmed(text, "", Side::right).end);
        } else if (end < source_.size() && sign != '+' && kind != '{') {
            const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
            const bool starts_line = line > 0 || at_ == 0 || source_[at_ - 1] == '\n';
            if (starts_line && trimmed(text.substr(line), "", Side::left).begin == text.size() - line)
                text = text.substr(0, line);
        }
        if (!text.empty()) push(Token::Type::data, std::string(text));
    }

    /// Steps over the end of a tag: its sign, its two bytes and the white space that it takes.
    void close(size_t bytes, bool takes_newline) {
        const char sign = peek();
        if (sign == '-' || sign == '+') ++at_;
        at_ += bytes;
        if (sign == '-') {
            at_ += trimmed(std::string_view(source_).substr(std::min(at_, source_.size())), "", Side::left).begin;
        } else if (takes_newline && sign != '+' && peek() == '\n') {
            ++at_;
        }
    }

    void comment() {
        const size_t end = source_.find("#}", at_ + 2);
        if (end == std::string::npos) refuse("a comment without #}}");
        at_ = end - (end > at_ + 2 && (source_[end - 1] == '-' || source_[end - 1] == '+') ? 1 : 0);
        close(2, true);
    }

    void code(bool block) {
        push(block ? Token::Type::block_begin : Token::Type::print_begin, "");
        at_ += 2;
        if (peek() == '-' || peek() == '+') ++at_;
        const std::string end = block ? "%}" : "}}";
        std::string open;  // brackets that wait for their end
        while (true) {
            while (at_ < source_.size() && std::isspace(static_cast<unsigned char>(source_[at_]))) ++at_;
            if (at_ >= source_.size()) refuse("the template ends inside a tag");
            const size_t sign = peek() == '-' || peek() == '+' ? 1 : 0;
            if (open.empty() && source_.compare(at_ + sign, 2, end) == 0) {
                push(block ? Token::Type::block_end : Token::Type::print_end, "");
                return close(2, block);
            }
            token(open);
        }
    }

    void token(std::string& open) {
        const char c = peek();
        if (is_digit(c)) return number();
        if (is_name_byte(c)) {
            size_t end = at_;
            while (end < source_.size() && is_name_byte(source_[end])) ++end;
            push(Token::Type::name, source_.substr(at_, end - at_));
            at_ = end;
            return;
        }
        if (c == '"' || c == '\'') return string(c);
        for (const char* two : {"==", "!=", "<=", ">=", "//", "**"})
            if (source_.compare(at_, 2, two) == 0) {
                push(Token::Type::symbol, two);
                at_ += 2;
                return;
            }
        if (std::string_view("+-*/%~()[]{}<>=.,:|").find(c) == std::string_view::npos || c == '\0')
            refuse("a character that Jinja does not know: '{}'", source_.substr(at_, character_length(source_, at_)));
        balance(c, open);
        push(Token::Type::symbol, std::string(1, c));
        ++at_;
    }

    void balance(char c, std::string& open) {
        if (c == '(') open += ')';
        if (c == '[') open += ']';
        if (c == '{') open += '}';
        if (c != ')' && c != ']' && c != '}') return;
        if (open.empty() || open.back() != c) refuse("'{}' closes nothing", c);
        open.pop_back();
    }

    void number() {
        const size_t start_at = at_;
        std::string digits;
        const auto take = [&] {
            for (; is_digit(peek()) || (peek() == '_' && is_digit(peek(1))); ++at_)
                if (peek() != '_') digits += peek();
        };
        const Place start = place();
        const bool index = start_at > 0 && source_[start_at - 1] == '.';  // x.0.1 has no fraction
        take();
        bool real = false;
        if (!index && peek() == '.' && is_digit(peek(1))) {
            real = true;
            digits += '.';
            ++at_;
            take();
        }
        if (!index && (peek() == 'e' || peek() == 'E')) {
            const size_t sign = peek(1) == '-' || peek(1) == '+' ? 1 : 0;
            if (is_digit(peek(1 + sign))) {
                real = true;
                digits += source_.substr(at_, 1 + sign);
                at_ += 1 + sign;
                take();
            }
        }
        if (is_name_byte(peek())) refuse("a number that continues with '{}'", peek());
        tokens_.push_back({real ? Token::Type::real : Token::Type::integer, digits, start});
    }

    void string(char quote) {
        const Place start = place();
        std::string text;
        for (++at_; peek() != quote; ++at_) {
            if (at_ >= source_.size())
                fail(Exit::config, "{}:{}:{}: a string without its end", name_, start.line, start.column);
            if (peek() == '\\')
                escape(text);
            else
                text += peek();
        }
        ++at_;
        tokens_.push_back({Token::Type::string, text, start});
    }

    /// Python's escapes. at_ is at the backslash, and at the last byte of the escape afterwards.
    void escape(std::string& text) {
        static constexpr std::string_view kNames = "nrtbfav\\'\"", kValues = "\n\r\t\b\f\a\v\\'\"";
        const char c = peek(1);
        ++at_;
        if (const size_t known = kNames.find(c); c != '\0' && known != std::string_view::npos) {
            text += kValues[known];
        } else if (c == 'x' || c == 'u' || c == 'U') {
            const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
            char32_t value = 0;
            for (size_t i = 1; i <= count; ++i) {
                if (!std::isxdigit(static_cast<unsigned char>(peek(i))))
                    refuse("'\\{}' needs {} hexadecimal digits", c, count);
                value = value * 16 + (is_digit(peek(i)) ? peek(i) - '0' : (peek(i) | 0x20) - 'a' + 10);
            }
            if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) refuse("'\\{}' names no character", c);
            append_character(text, value);
            at_ += count;
        } else if (c >= '0' && c <= '7') {
            char32_t value = 0;
            size_t count = 0;
            for (; count < 3 && peek(count) >= '0' && peek(count) <= '7'; ++count)
                value = value * 8 + (peek(count) - '0');
            append_character(text, value);
            at_ += count - 1;
        } else if (c == 'N') {
            refuse("escapes by name (\\N) are not supported");
        } else if (c != '\n') {  // an unknown escape keeps its backslash
            text += '\\';
            if (at_ < source_.size()) text += c;
        }
    }

    const std::string source_;
    const std::string& name_;
    std::vector<Token> tokens_;
    size_t at_ = 0, counted_ = 0;
    Place counted_place_;
};

}  // namespace

std::vector<Token> tokenize(const std::string& source, const std::string& name) {
    if (source.size() > kSource)
        fail(Exit::config, "{}: a template of {} bytes, expected at most {}", name, source.size(), kSource);
    if (const size_t good = well_formed_prefix(source); good != source.size())
        fail(Exit::config, "{}: ill-formed UTF-8 at byte {}", name, good);
    return Lexer(source, name).run();
}

}  // namespace colonnade::jinja
