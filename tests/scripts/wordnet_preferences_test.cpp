#include <set>

#include "tests/support/tiny_wordnet.h"

namespace colonnade {
namespace {

struct Pair {
    std::string question, chosen, rejected;
    auto operator<=>(const Pair&) const = default;
};

std::string only_message(const Json& row, const char* key, const char* role) {
    const Json& messages = row.at(key);
    EXPECT_EQ(messages.size(), 1u);
    EXPECT_EQ(messages[0].at("role"), role);
    return messages[0].at("content");
}

std::vector<Pair> pairs_of(const Lines& lines) {
    std::vector<Pair> pairs;
    for (const std::string& line : lines) {
        const Json row = Json::parse(line);
        EXPECT_EQ(row.size(), 3u);
        pairs.push_back({only_message(row, "prompt", "user"), only_message(row, "chosen", "assistant"),
                         only_message(row, "rejected", "assistant")});
    }
    return pairs;
}

class WordnetPreferences : public WordnetTest {
  protected:
    Outcome run(const std::string& options, const std::string& wordnet = "") const {
        return WordnetTest::run("wordnet_preferences", "--train " + folder_ + "/train.jsonl " + options, wordnet);
    }
    /// A dictionary with this number of nouns, two words for each meaning.
    void write_many(int nouns) const {
        std::map<std::string, Lines> files;
        for (const char* part : {"noun", "verb", "adj", "adv"})
            files[std::string("data.") + part] = files[std::string("index.") + part] = {};
        for (int i = 0; i < nouns; ++i) {
            const std::string name{char('a' + i / 26), char('a' + i % 26)};
            files["data.noun"].push_back(fmt::format("{0:08} 03 n 02 {1}lo 0 {1}hi 0 000 | sense {1}", i + 1, name));
            for (const char* end : {"hi", "lo"})
                files["index.noun"].push_back(fmt::format("{}{} n 1 0 1 0 {:08}", name, end, i + 1));
        }
        write(files);
    }
};

TEST_F(WordnetPreferences, TheRightMeaningAgainstThatOfAnotherWord) {
    write(tiny_wordnet);
    const Outcome outcome = run("--validation-share 0");
    ASSERT_EQ(outcome.exit, 0) << outcome.errors;
    const std::map<std::string, std::string> right{
        {"What does the noun canine mean?", "Canine means a carnivore with sharp teeth."},
        {"What does the noun dog mean?", "Dog means a tame canid."},
        {"What does the noun domestic dog mean?", "Domestic dog means a tame canid."},
        {"What does the noun national capital mean?", "National capital means the seat of a government."},
        {"What does the noun Paris mean?", "Paris means the capital and largest city of France."},
        {"What does the noun pet mean?", "Pet means an animal kept for company."}};
    const std::set<std::string> meanings = {"a carnivore with sharp teeth", "a tame canid", "the seat of a government",
                                            "the capital and largest city of France", "an animal kept for company"};
    std::map<std::string, std::string> chosen;
    for (const Pair& pair : pairs_of(outcome.train)) {
        chosen[pair.question] = pair.chosen;
        // The rejected answer is the chosen one with another noun's meaning, none that the word has itself.
        const size_t end = pair.chosen.find(" means ") + 7;
        EXPECT_EQ(pair.rejected.substr(0, end), pair.chosen.substr(0, end));
        const std::string wrong = pair.rejected.substr(end, pair.rejected.size() - end - 1);
        EXPECT_TRUE(meanings.contains(wrong)) << wrong;
        EXPECT_NE(pair.rejected, pair.chosen);
        if (pair.question == "What does the noun dog mean?") {
            EXPECT_NE(wrong, "a carnivore with sharp teeth");
        }
    }
    EXPECT_EQ(chosen, right);
    // One meaning of a verb (two words), of an adjective, of an adverb: no other meaning to compare it with.
    EXPECT_NE(outcome.output.find("left out because no other word has a rejected meaning to offer: 4"),
              std::string::npos)
        << outcome.output;
    EXPECT_TRUE(outcome.validation.empty());
}

TEST_F(WordnetPreferences, LimitIsAPrefixAndRunsAgree) {
    write_many(40);
    const Outcome whole = run("--validation-share 0"), again = run("--validation-share 0");
    EXPECT_EQ(whole.train.size(), 80u);
    EXPECT_EQ(whole.train, again.train);
    EXPECT_EQ(run("--validation-share 0 --limit 5").train, Lines(whole.train.begin(), whole.train.begin() + 5));
}

/// Rejected meanings come from the same side of the split, and not all from one word.
TEST_F(WordnetPreferences, SplitsByWordBothAnswers) {
    write_many(400);
    const Outcome outcome = run("--validation-share 0.25");
    ASSERT_EQ(outcome.exit, 0) << outcome.errors;
    std::map<std::string, std::set<std::string>> chosen, rejected;  // meanings by side
    for (const auto& [side, lines] : {std::pair{"train", &outcome.train}, {"validation", &outcome.validation}}) {
        for (const Pair& pair : pairs_of(*lines)) {
            chosen[side].insert(pair.chosen.substr(pair.chosen.find("sense")));
            rejected[side].insert(pair.rejected.substr(pair.rejected.find("sense")));
        }
        EXPECT_TRUE(std::ranges::includes(chosen[side], rejected[side])) << side;
        EXPECT_GT(rejected[side].size(), chosen[side].size() / 2) << side;
    }
    EXPECT_EQ(outcome.train.size() + outcome.validation.size(), 800u);
    EXPECT_EQ(chosen["train"].size() + chosen["validation"].size(), 400u) << "a meaning is on both sides";
    EXPECT_NEAR(static_cast<double>(chosen["validation"].size()), 100, 35);  // four standard deviations of a fair draw
}

TEST_F(WordnetPreferences, BadInputIsOneClearErrorAndWritesNothing) {
    write(tiny_wordnet);
    write({{"data.adv", {"00000001 02 r 01 barely 0 000"}}});
    const Outcome bad = run("");
    EXPECT_EQ(bad.exit, 3);
    EXPECT_NE(bad.errors.find("data.adv:1: expected a gloss after '|', found none"), std::string::npos) << bad.errors;
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/train.jsonl"));
    EXPECT_EQ(run("--validation-share 2").exit, 2);
}

TEST_F(WordnetPreferences, TheWholeDictionary) {
    if (!std::filesystem::exists("/usr/share/wordnet/data.noun")) GTEST_SKIP() << "wordnet-base is not installed";
    const Outcome outcome = run("", "/usr/share/wordnet");
    ASSERT_EQ(outcome.exit, 0) << outcome.errors;
    const std::vector<Pair> train = pairs_of(outcome.train), validation = pairs_of(outcome.validation);
    EXPECT_GT(train.size(), 100000u);
    EXPECT_NEAR(static_cast<double>(validation.size()) / static_cast<double>(train.size()), 0.03, 0.005);
    std::set<std::string> asked;
    for (const auto* pairs : {&train, &validation}) {
        for (const Pair& pair : *pairs) {
            EXPECT_TRUE(asked.insert(pair.question).second) << pair.question << " is asked twice";
            EXPECT_NE(pair.chosen, pair.rejected);
        }
    }
}

}  // namespace
}  // namespace colonnade
