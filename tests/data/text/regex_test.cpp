#include "data/text/regex.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "data/text/unicode.h"
#include "engine/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> matches_of(const Regex& regex, const std::string& text) {
    std::vector<Piece> found;
    regex.find(text, 0, found);
    std::vector<std::string> out;
    for (const Piece piece : found)
        if (piece.end > piece.begin) out.push_back(text.substr(piece.begin, piece.end - piece.begin));
    return out;
}

TEST(Regex, matches_are_those_of_the_tokenizers_package) {
    std::ifstream file(golden_file("regex_golden.jsonl"));
    int lines = 0;
    for (std::string text; std::getline(file, text); ++lines) {
        const Json line = parse_json(text, "regex_golden.jsonl");
        const auto pattern = line["pattern"].get<std::string>();
        EXPECT_EQ(matches_of(Regex(pattern, "test"), line["text"]), line["matches"].get<std::vector<std::string>>())
            << pattern << " in " << line["text"] << ", translated: " << pcre2_pattern(pattern, "test");
    }
    EXPECT_GT(lines, 500);
}

void collect_patterns(const Json& json, std::set<std::string>& patterns) {
    if (json.is_object() && json.contains("Regex")) patterns.insert(json["Regex"]);
    if (json.is_structured())
        for (const Json& part : json) collect_patterns(part, patterns);
}

/// Text with characters of every kind, of every version of Unicode.
std::string hard_text(std::mt19937& random, size_t characters) {
    constexpr std::string_view parts[] = {" ",       "  ", "\n", "\r\n",  "'s",    "'LL",
                                          "'\u017F", "ab", "Cd", "12345", "...\n", "\t"};
    std::string text;
    for (size_t i = 0; i < characters; ++i) {
        const auto draw = random();
        const uint32_t most = draw % 3 == 0 ? 0x110000 : draw % 3 == 1 ? 0x3200 : 0x250;
        const uint32_t point = random() % most;
        if (draw % 4 == 0)
            text += parts[draw / 16 % std::size(parts)];
        else if (point < 0xD800 || point >= 0xE000)
            append_character(text, point);
    }
    return text;
}

TEST(Regex, splitters_written_by_hand_equal_it) {
    std::set<std::string> patterns{std::string(gpt2_pattern)};
    for (const auto& entry : fs::directory_iterator(golden_file("tokenizers")))
        collect_patterns(read_json_file((entry.path() / "tokenizer.json").string())["pre_tokenizer"], patterns);
    int known = 0;
    std::mt19937 random(7);
    for (const std::string& pattern : patterns) {
        const KnownSplitter splitter = find_known_splitter(pattern);
        if (!splitter) continue;
        ++known;
        const Regex regex(pattern, "test");
        for (int i = 0; i < 400; ++i) {
            const std::string text = hard_text(random, 1 + i % 60);
            std::vector<Piece> by_hand, by_regex;
            splitter.find(text.data(), {0, static_cast<uint32_t>(text.size())}, by_hand);
            regex.find(text, 0, by_regex);
            const auto same = [](Piece a, Piece b) { return a.begin == b.begin && a.end == b.end; };
            ASSERT_TRUE(std::equal(by_hand.begin(), by_hand.end(), by_regex.begin(), by_regex.end(), same))
                << pattern << " in " << Json(text).dump();
        }
    }
    EXPECT_EQ(known, 14);
}

TEST(Regex, replaces_every_match) {
    EXPECT_EQ(Regex(" {2,}", "test").replace("a  b    c d", "_"), "a_b_c d");
    EXPECT_EQ(Regex("x*", "test").replace("axxb", "-"), "-a-b-") << "as the package does with empty matches";
    EXPECT_EQ(Regex("x*", "test").replace("", "-"), "");
}

TEST(Regex, what_would_mean_something_else_is_refused_by_name) {
    struct Case {
        const char *pattern, *part;
    };
    const Case cases[] = {
        {R"((a)\1)", "at byte 4: '\\1'"},
        {R"(\k<x>)", "'\\k'"},
        {R"(\Ga)", "'\\G'"},
        {R"(\X)", "'\\X'"},
        {R"(a\Kb)", "'\\K'"},
        {R"((?<name>a))", "the group '(?<name>'"},
        {R"((?~a))", "the group '(?~"},
        {R"((*FAIL))", "the group '(*FAIL"},
        {R"(a(?#note)b)", "the group '(?#note)"},
        {R"((?x: a))", "the group '(?x:"},
        {R"([[:alpha:]])", "the class '[:alpha:]"},
        {R"(\p{Unassigned})", "the property 'Unassigned'"},
        {R"(\p{Cn})", "the property 'Cn'"},
        {R"(\p{L)", "the property"},
        {R"(\xE9)", "the character code"},
        {R"(\u12)", "the character code"},
        {R"(\x{D800})", "the character code"},
        {R"((?i:ss))", "'ss' without regard to case"},
        {R"((?i:É))", "beyond ASCII without regard to case"},
        {R"((?i:\p{Lu}))", "letters beyond ASCII"},
        {R"((?=a)*)", "a repeat of a place"},
        {R"(*a)", "a repeat of nothing"},
        {R"({3})", "a repeat of nothing"},
        {R"(a|{,3})", "a repeat of nothing"},
        {R"(({2}))", "a repeat of nothing"},
        {R"(a{5,2})", "repeats from 5 to 2"},
        {R"(a{2000})", "more than 1000 repeats"},
        {R"([b-a])", "a range whose end"},
        {R"([a)", "a '[' without ']'"},
        {R"((a)", "a '(' without ')'"},
        {R"(a))", "a ')' without '('"},
        {R"(a\)", "ends too early"},
        {R"((?<=a+)b)", "lookbehind assertion is not fixed length"},
    };
    for (const Case& c : cases) expect_error(Exit::data, c.part, [&] { Regex(c.pattern, "tokenizer.json"); });
    const std::string deep(1000, '('), classes(100, '[');
    expect_error(Exit::data, "groups nested deeper than 16 levels", [&] { Regex(deep, "tokenizer.json"); });
    expect_error(Exit::data, "classes nested deeper than 3 levels", [&] { Regex(classes, "tokenizer.json"); });
    std::string sets;
    for (int i = 0; i < 1001; ++i) sets += "\\s";
    expect_error(Exit::data, "more than 1000 sets of characters", [&] { Regex(sets, "tokenizer.json"); });
    expect_error(Exit::data, "100000 bytes, expected at most 65536",
                 [&] { Regex(std::string(100'000, 'a'), "tokenizer.json"); });
    std::string repeats = "a";
    for (int i = 0; i < 40; ++i) repeats += "{999}";
    expect_error(Exit::data, "not supported", [&] { Regex(repeats, "tokenizer.json"); });
}

/// Sets of a million bits are on the stack.
TEST(Regex, nested_groups_and_classes_take_little_stack) {
    const std::string pattern = std::string(16, '(') + R"([a[b&&[c[^\p{L}&&\S]]]])" + std::string(16, ')');
    bool done = false;
    std::thread([&] { done = matches_of(Regex(pattern, "test"), "a1").size() == 1; }).join();
    EXPECT_TRUE(done);
}

TEST(Regex, replacing_is_bounded) {
    const std::string text(1000, 'a'), content(1 << 20, 'b');
    expect_error(Exit::data, "bytes of text at once", [&] { Regex("a", "test").replace(text, content); });
}

TEST(Regex, matching_without_end_is_an_error_that_names_the_pattern) {
    for (const char* pattern : {"(?:a+)+(?!a|b)c|(?:a+)+(?=c)", "(?:a|aa)+(?=x)", "(?:(?:a*)*)*(?=x)"}) {
        const Regex regex(pattern, "tokenizer.json");
        const std::string text = std::string(5000, 'a') + "bx";
        std::vector<Piece> found;
        expect_error(Exit::data, std::string("the pattern '") + pattern, [&] { regex.find(text, 0, found); });
    }
}

TEST(Regex, slow_matching_at_many_places_is_an_error_too) {
    const std::string text = std::string(100'000, ' ') + "x";
    std::vector<Piece> found;
    for (const char* pattern : {R"((?:\s|a)+$)", R"((?:\s|a)+$|\s)"})
        expect_error(Exit::data, "100001 bytes of text stops at byte",
                     [&] { Regex(pattern, "t").find(text, 0, found); });
}

TEST(Regex, matches_far_apart_are_found) {
    for (const size_t n : {15, 16, 17, 31, 32, 33, 5000}) {
        std::string text;
        for (size_t i = 0; i < n; ++i) text += i % 3 == 0 ? "\u00e9" : i % 3 == 1 ? "\u4e00" : "b";
        EXPECT_EQ(matches_of(Regex("x+|(?<=y)z", "t"), text + "x" + text + "yz").size(), 2u) << n;
        EXPECT_EQ(Regex("$", "t").replace(text, "!"), text + "!") << n;
    }
}

TEST(Regex, long_runs_match_in_time) {
    const Regex regex(R"(\p{L}+|(?:\s|\d)+)", "test");
    for (const char c : {'a', ' ', '7'}) EXPECT_EQ(matches_of(regex, std::string(500'000, c)).size(), 1u);
}

}  // namespace
}  // namespace colonnade
