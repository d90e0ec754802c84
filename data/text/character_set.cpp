#include "data/text/character_set.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "data/text/unicode.h"

namespace colonnade {
namespace {

constexpr bool is_surrogate(uint32_t point) {
    return point >= 0xD800 && point < 0xE000;
}
/// Beyond these planes there are only unassigned and private characters.
constexpr bool can_be_assigned(uint32_t point) {
    return point < 0x40000 || (point >= 0xE0000 && point < 0xE1000);
}

/// What PCRE2 takes for \p{name}; nothing if it does not know the name.
std::optional<CharacterSet> ask_pcre2(const std::string& name) {
    const std::string pattern = fmt::format("\\p{{{}}}", name);
    int error = 0;
    PCRE2_SIZE place = 0;
    const auto* text = reinterpret_cast<PCRE2_SPTR>(pattern.data());
    const std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code(
        pcre2_compile(text, pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &place, nullptr), pcre2_code_free);
    if (!code) return std::nullopt;
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(pcre2_match_data_create(1, nullptr),
                                                                               pcre2_match_data_free);
    CharacterSet set;
    std::string character;
    for (uint32_t point = 0; point < set.size(); ++point) {
        if (is_surrogate(point) || !can_be_assigned(point)) continue;
        character.clear();
        append_character(character, point);
        const auto* subject = reinterpret_cast<PCRE2_SPTR>(character.data());
        if (pcre2_match(code.get(), subject, character.size(), 0, PCRE2_NO_UTF_CHECK, match.get(), nullptr) > 0)
            set.set(point);
    }
    return set;
}

const CharacterSet* pcre2_property(const std::string& name) {
    static std::mutex mutex;
    static std::map<std::string, std::optional<CharacterSet>> known;
    const std::lock_guard lock(mutex);
    auto found = known.find(name);
    if (found == known.end()) found = known.emplace(name, ask_pcre2(name)).first;
    return found->second ? &*found->second : nullptr;
}

void append_ranges(const CharacterSet& set, std::string& out) {
    for (uint32_t first = 0; first < set.size(); ++first) {
        if (!set[first]) continue;
        uint32_t last = first;
        while (last + 1 < set.size() && set[last + 1]) ++last;
        out += fmt::format("\\x{{{:x}}}", first);
        if (last > first) out += fmt::format("-\\x{{{:x}}}", last);
        first = last;
    }
}

/// The name without the characters that Oniguruma ignores, in lower case.
std::string plain_name(std::string_view name) {
    std::string plain;
    for (const char c : name)
        if (c != ' ' && c != '_' && c != '-') plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
    return plain;
}

struct Category {
    const char *long_name, *name;
};
constexpr Category categories[] = {
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"control", "Cc"},
    {"format", "Cf"},
};

}  // namespace

CharacterSet characters_of(unsigned classes) {
    CharacterSet set;
    for (uint32_t point = 0; point < set.size(); ++point)
        if (!is_surrogate(point) && (unicode_class(point) & classes)) set.set(point);
    return set;
}

std::optional<CharacterSet> characters_of_property(std::string_view given) {
    using namespace unicode;
    const std::string plain = plain_name(given);
    std::string name;
    for (const Category& c : categories)
        if (plain == c.long_name || plain == plain_name(c.name)) name = c.name;
    struct Exact {
        const char* name;
        unsigned classes;
    };
    constexpr Exact exact[] = {{"L", letter}, {"Ll", lower}, {"M", mark},  {"N", number},
                               {"Nd", digit}, {"P", punct},  {"S", symbol}};
    for (const Exact& e : exact)
        if (name == e.name) return characters_of(e.classes);
    if (name == "Lu") return characters_of(upper) & ~*pcre2_property("Lt");
    if (name == "Lt") return characters_of(upper) & *pcre2_property("Lt");
    if (name == "Lo") return characters_of(other) & ~*pcre2_property("Lm");
    if (plain == "han") return characters_of(han);
    if (plain == "word") return characters_of(word);
    const CharacterSet* found = nullptr;
    if (!name.empty()) found = pcre2_property(name);
    // A script: PCRE2 takes its name in this form for the script itself, without its extensions.
    if (name.empty() && plain.size() > 1 &&
        std::all_of(plain.begin(), plain.end(), [](char c) { return c >= 'a' && c <= 'z'; }))
        found = pcre2_property("sc:" + plain);
    return found ? std::optional(*found) : std::nullopt;
}

/// PCRE2 finds its own properties fast and long lists of ranges slowly. So a class is made of its properties, of the
/// characters that they lack, and of a test for the few that they have too many.
std::string pcre2_class(const CharacterSet& set) {
    const bool negated = set[0x10FFFF];
    CharacterSet inside = negated ? ~set : set, covered;
    for (uint32_t point = 0xD800; point < 0xE000; ++point) inside.reset(point);
    if (inside.none()) return negated ? "(?s:.)" : "(?!)";
    std::string items, excess;
    for (const char* name : {"L", "M", "N", "P", "S", "Lu", "Ll", "Lt", "Lm", "Lo", "Nd"}) {
        if (inside.count() < 100) break;
        const CharacterSet& theirs = *pcre2_property(name);
        const size_t too_many = (theirs & ~inside).count(), useful = (theirs & inside & ~covered).count();
        if (useful < 20 || too_many > 16) continue;
        items += fmt::format("\\p{{{}}}", name);
        covered |= theirs;
    }
    append_ranges(inside & ~covered, items);
    append_ranges(covered & ~inside, excess);
    const std::string text = fmt::format("[{}{}]", negated ? "^" : "", items);
    if (excess.empty()) return text;
    return negated ? fmt::format("(?:{}|[{}])", text, excess) : fmt::format("(?:(?![{}]){})", excess, text);
}

}  // namespace colonnade
