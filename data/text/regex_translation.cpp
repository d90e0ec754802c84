#include <algorithm>

#include "data/text/character_set.h"
#include "data/text/regex.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr int most_depth = limits::pattern_depth, most_nested_classes = limits::pattern_nested_classes;
constexpr int most_repeats = limits::pattern_repeats, most_sets = limits::pattern_sets;
constexpr size_t longest_pattern = limits::pattern_bytes;

/// Reads Oniguruma's Ruby syntax and writes PCRE2's. Source: Oniguruma 6.9, doc/RE and doc/SYNTAX.md. Each character
/// class is written as a set of its own, since the two libraries have different properties, nesting and && in them.
class Translation {
  public:
    Translation(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {
        if (in_.size() > longest_pattern) refuse("{} bytes, expected at most {}", in_.size(), longest_pattern);
        if (well_formed_prefix(in_) != in_.size()) refuse("ill-formed UTF-8");
        alternatives(0);
        if (at_ < in_.size()) refuse("a ')' without '('");
    }
    std::string take() { return std::move(out_); }

  private:
    struct Counts {
        int least, most;  // most -1: without end
        bool fixed;       // {n}
    };
    struct Item {  // of a character class: a set, or a character
        std::optional<CharacterSet> set;
        uint32_t point = 0;
    };

    template <typename... Parts>
    [[noreturn]] void refuse(fmt::format_string<Parts...> text, Parts&&... parts) const {
        const std::string why = fmt::format(text, std::forward<Parts>(parts)...);
        fail(Exit::data, "{}: the pattern '{:.300}': not supported, at byte {}: {}", where_, in_, at_, why);
    }
    bool next_is(std::string_view text) const { return in_.substr(at_).starts_with(text); }
    bool take(std::string_view text) {
        if (!next_is(text)) return false;
        at_ += text.size();
        return true;
    }
    char peek() const { return at_ < in_.size() ? in_[at_] : '\0'; }
    uint32_t character() {
        if (at_ >= in_.size()) refuse("the pattern ends too early");
        const Character c = character_at(in_.data() + at_);
        at_ += c.bytes;
        return c.point;
    }

    void alternatives(int depth);
    void repeats(size_t atom, bool repeatable);
    std::optional<Counts> repeat_counts();
    void character_class();
    bool atom(int depth);
    bool group(int depth);
    bool options(int depth);
    bool escape();
    Item class_escape(char c);
    uint32_t code_point(char kind);
    void count_set();
    void write_set(const CharacterSet& set);
    void write_character(uint32_t point);
    CharacterSet set(int depth);
    Item set_item();
    void add_item(CharacterSet& part);

    std::string_view in_;
    const std::string& where_;
    size_t at_ = 0;
    int sets_ = 0;
    std::string out_;
    bool ignore_case_ = false;
    char last_letter_ = '\0';  // if case is ignored: the lower-case letter just before
};

/// Up to the end of the pattern or of the group.
void Translation::alternatives(int depth) {
    if (depth > most_depth) refuse("groups nested deeper than {} levels", most_depth);
    while (at_ < in_.size() && in_[at_] != ')') {
        if (take("|")) {
            out_ += '|';
            last_letter_ = '\0';
            continue;
        }
        const size_t begin = out_.size();
        const bool repeatable = atom(depth);
        repeats(begin, repeatable);
    }
}

/// {n}, {n,m}, {n,}, {,m}. Nothing for any other brace, which is a character.
std::optional<Translation::Counts> Translation::repeat_counts() {
    if (peek() != '{') return std::nullopt;
    const size_t close = in_.find('}', at_);
    if (close == in_.npos) return std::nullopt;
    const std::string_view text = in_.substr(at_ + 1, close - at_ - 1);
    const size_t comma = text.find(',');
    const auto number = [&](std::string_view digits, int otherwise) {
        if (digits.empty()) return otherwise;
        if (digits.size() > 4 || std::stoi(std::string(digits)) > most_repeats)
            refuse("more than {} repeats", most_repeats);
        return std::stoi(std::string(digits));
    };
    if (text.find_first_not_of("0123456789,") != text.npos || text.empty() || text == "," ||
        (comma != text.npos && text.find(',', comma + 1) != text.npos))
        return std::nullopt;
    const int least = number(text.substr(0, comma), 0);
    const int most = comma == text.npos ? least : number(text.substr(comma + 1), -1);
    if (most >= 0 && least > most) refuse("repeats from {} to {}", least, most);
    at_ = close + 1;
    return Counts{least, most, comma == text.npos};
}

/// Ruby has lazy and possessive forms of ? * +, a lazy form of {n,m}, and repeats of repeats.
void Translation::repeats(size_t begin, bool repeatable) {
    for (bool first = true;; first = false) {
        std::string repeat;
        if (const char c = peek(); c == '?' || c == '*' || c == '+') {
            ++at_;
            repeat = c;
            if (take("?"))
                repeat += '?';
            else if (take("+"))
                repeat += '+';
        } else if (const auto counts = repeat_counts()) {
            const auto [least, most, fixed] = *counts;
            repeat = most < 0 ? fmt::format("{{{},}}", least) : fmt::format("{{{},{}}}", least, most);
            if (!fixed && take("?")) repeat += '?';
        } else {
            return;
        }
        if (!repeatable) refuse("a repeat of a place");
        if (!first) out_ = out_.substr(0, begin) + "(?:" + out_.substr(begin) + ")";
        if (out_.size() > limits::translated_bytes) refuse("repeats of repeats are too long");
        out_ += repeat;
        last_letter_ = '\0';
    }
}

/// Returns whether it can be repeated.
bool Translation::atom(int depth) {
    const char c = in_[at_];
    const char before = last_letter_;
    last_letter_ = '\0';
    if (c == '(') return group(depth);
    if (c == '\\') return escape();
    if (c == '?' || c == '*' || c == '+' || repeat_counts()) refuse("a repeat of nothing");
    if (c == '[') {
        character_class();
    } else if (c == '.') {
        ++at_;
        out_ += '.';
    } else if (c == '^' || c == '$') {
        ++at_;
        out_ += c;
        return false;
    } else {
        last_letter_ = before;
        write_character(character());
    }
    return true;
}

/// Sets are large: they may not be locals of the functions that call themselves for groups.
[[gnu::noinline]] void Translation::character_class() {
    ++at_;
    write_set(set(0));
}

bool Translation::group(int depth) {
    struct Head {
        std::string_view text;
        bool repeatable;
    };
    constexpr Head heads[] = {{"(?:", true},  {"(?>", true},   {"(?=", false},
                              {"(?!", false}, {"(?<=", false}, {"(?<!", false}};
    const bool case_before = ignore_case_;
    bool repeatable = true;
    const auto* head = std::find_if(std::begin(heads), std::end(heads), [&](const Head& h) { return next_is(h.text); });
    if (head != std::end(heads)) {
        at_ += head->text.size();
        out_ += head->text;
        repeatable = head->repeatable;
    } else if (next_is("(?<") || next_is("(*")) {
        refuse("the group '{:.8}'", in_.substr(at_));
    } else if (next_is("(?")) {
        if (!options(depth)) return false;
    } else {
        ++at_;
        out_ += "(?:";  // nothing refers to what a group captures
    }
    alternatives(depth + 1);
    if (!take(")")) refuse("a '(' without ')'");
    out_ += ')';
    ignore_case_ = case_before;
    last_letter_ = '\0';
    return repeatable;
}

/// (?im-im: opens a group; returns true. (?im) counts up to the end of the group around it, with its alternatives.
bool Translation::options(int depth) {
    const size_t begin = at_;
    const bool case_before = ignore_case_;
    at_ += 2;
    std::string written = "(?";
    for (bool on = true; peek() != ':' && peek() != ')'; ++at_) {
        const char c = peek();
        if (c == '-' && on)
            on = false, written += '-';
        else if (c == 'i')
            ignore_case_ = on, written += 'i';
        else if (c == 'm')
            written += 's';
        else
            refuse("the group '{:.8}'", in_.substr(begin));
    }
    out_ += written + ":";
    if (take(":")) return true;
    ++at_;
    alternatives(depth + 1);
    out_ += ')';
    ignore_case_ = case_before;
    return false;
}

/// Returns whether it can be repeated.
bool Translation::escape() {
    ++at_;
    const char c = peek();
    if (take("b") || take("B")) {
        const std::string word = pcre2_class(characters_of(unicode::word));
        count_set();
        const char* form = c == 'b' ? "(?:(?<={0})(?!{0})|(?<!{0})(?={0}))" : "(?:(?<={0})(?={0})|(?<!{0})(?!{0}))";
        out_ += fmt::format(fmt::runtime(form), word);
        return false;
    }
    if (take("A") || take("z") || take("Z")) {
        out_ += fmt::format("\\{}", c);
        return false;
    }
    if (take("R")) {
        out_ += R"((?>\x0d\x0a|[\x0a-\x0d\x{85}\x{2028}\x{2029}]))";
        return true;
    }
    const Item item = class_escape(c);
    item.set ? write_set(*item.set) : write_character(item.point);
    return true;
}

/// What stands behind a backslash, in a class and outside.
Translation::Item Translation::class_escape(char c) {
    const auto negated_if = [this](bool negated, const CharacterSet& set) {
        count_set();
        return negated ? ~set : set;
    };
    CharacterSet set;
    switch (c) {
        case 'd':
        case 'D':
            return ++at_, Item{negated_if(c == 'D', characters_of(unicode::digit))};
        case 's':
        case 'S':
            return ++at_, Item{negated_if(c == 'S', characters_of(unicode::space))};
        case 'w':
        case 'W':
            return ++at_, Item{negated_if(c == 'W', characters_of(unicode::word))};
        case 'h':
        case 'H':
            for (const char digit : std::string_view("0123456789abcdefABCDEF")) set.set(static_cast<size_t>(digit));
            return ++at_, Item{negated_if(c == 'H', set)};
        case 'p':
        case 'P': {
            ++at_;
            if (!take("{")) refuse("\\{} without a name in braces", c);
            const bool negated = take("^") != (c == 'P');
            const size_t end = in_.find('}', at_);
            const std::string_view name = in_.substr(at_, end - at_);
            const auto found = end == in_.npos ? std::nullopt : characters_of_property(name);
            if (!found) refuse("the property '{:.40}'", name);
            at_ = end + 1;
            return {negated_if(negated, *found)};
        }
        case 'x':
        case 'u':
            return ++at_, Item{{}, code_point(c)};
        default:
            break;
    }
    constexpr std::string_view names = "tnrfvae", values = "\t\n\r\f\v\a\x1b";
    if (const size_t i = names.find(c); i != names.npos && c != '\0')
        return ++at_, Item{{}, static_cast<unsigned char>(values[i])};
    if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')) refuse("'\\{}'", c);
    return {{}, character()};
}

/// \xHH below 80, \x{H...}, \uHHHH
uint32_t Translation::code_point(char kind) {
    const bool braces = kind == 'x' && take("{");
    const size_t most = braces ? 6 : kind == 'x' ? 2 : 4;
    uint32_t point = 0;
    size_t count = 0;
    for (; count < most && std::isxdigit(static_cast<unsigned char>(peek())); ++count, ++at_)
        point = point * 16 + static_cast<uint32_t>(peek() <= '9' ? peek() - '0' : (peek() | 32) - 'a' + 10);
    const bool whole = count > 0 && (kind == 'x' || count == most) && (!braces || take("}"));
    if (!whole || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000) || (kind == 'x' && !braces && point > 0x7F))
        refuse("the character code '\\{}'", kind);
    return point;
}

/// A set costs milliseconds.
void Translation::count_set() {
    if (++sets_ > most_sets) refuse("more than {} sets of characters", most_sets);
}

/// Without regard to case the two libraries agree on ASCII and on characters that have no case.
void Translation::write_set(const CharacterSet& set) {
    if (ignore_case_) {
        CharacterSet cased = characters_of(unicode::upper | unicode::lower);
        for (size_t point = 0; point < 0x80; ++point) cased.reset(point);
        if ((cased & set).any()) refuse("letters beyond ASCII in a class without regard to case");
    }
    out_ += pcre2_class(set);
}

/// Oniguruma also folds ligatures and the sharp s into two letters.
void Translation::write_character(uint32_t point) {
    const bool letter = point < 0x80 && std::isalpha(static_cast<int>(point));
    if (ignore_case_) {
        if (point >= 0x80) refuse("a character beyond ASCII without regard to case");
        const std::string pair{last_letter_, static_cast<char>(point | 32)};
        for (const std::string_view folded : {"ss", "ff", "fi", "fl", "st"})
            if (letter && pair == folded) refuse("'{}' without regard to case", pair);
        last_letter_ = letter ? static_cast<char>(point | 32) : '\0';
    }
    if (letter || (point >= '0' && point <= '9') || point >= 0x80)
        append_character(out_, point);
    else
        out_ += fmt::format("\\x{{{:x}}}", point);
}

Translation::Item Translation::set_item() {
    if (!take("\\")) return {{}, character()};
    if (take("b")) return {{}, 0x08};
    return class_escape(peek());
}

/// A set, a character or a range.
void Translation::add_item(CharacterSet& part) {
    const Item first = set_item();
    if (first.set) {
        part |= *first.set;
        return;
    }
    const bool range = peek() == '-' && at_ + 1 < in_.size() && in_[at_ + 1] != ']' && in_[at_ + 1] != '[' &&
                       in_.substr(at_ + 1, 2) != "&&";
    if (!range) {
        part.set(first.point);
        return;
    }
    ++at_;
    const Item last = set_item();
    if (last.set) refuse("a range that ends with a set");
    if (last.point < first.point) refuse("a range whose end is before its beginning");
    for (uint32_t point = first.point; point <= last.point; ++point) part.set(point);
}

/// Behind '['. Items are joined; && keeps what both sides have.
CharacterSet Translation::set(int depth) {
    if (depth > most_nested_classes) refuse("classes nested deeper than {} levels", most_nested_classes);
    const bool negated = take("^");
    std::optional<CharacterSet> left;
    CharacterSet part;
    count_set();
    for (bool first = true; first || !next_is("]"); first = false) {
        if (at_ >= in_.size()) refuse("a '[' without ']'");
        if (next_is("[:")) refuse("the class '{:.12}'", in_.substr(at_));
        if (take("&&")) {
            left = left ? *left & part : part;
            part.reset();
        } else if (take("[")) {
            part |= set(depth + 1);
        } else {
            add_item(part);
        }
    }
    ++at_;
    if (left) part &= *left;
    return negated ? ~part : part;
}

}  // namespace

std::string pcre2_pattern(std::string_view pattern, const std::string& where) {
    return Translation(pattern, where).take();
}

}  // namespace colonnade
