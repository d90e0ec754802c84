#include <set>

#include "tests/support/tiny_wordnet.h"

namespace colonnade {
namespace {

class WordnetChat : public WordnetTest {
  protected:
    Outcome run(const std::string& options, const std::string& wordnet = "") const {
        return WordnetTest::run("wordnet_chat", options + " --text " + folder_ + "/text.txt", wordnet);
    }
};

std::pair<std::string, std::string> turn(const std::string& line) {
    const Json messages = Json::parse(line).at("messages");
    EXPECT_EQ(messages.size(), 2u);
    EXPECT_EQ(messages[0].at("role"), "user");
    EXPECT_EQ(messages[1].at("role"), "assistant");
    return {messages[0].at("content"), messages[1].at("content")};
}

TEST(Gloss, SplitsDefinitionsFromExamples) {
    struct Case {
        const char *text, *definition;
        Lines examples;
    };
    const Case cases[] = {
        {"  suck in (air)  ", "suck in (air)", {}},
        {R"(a whole; an entity; "the team; it won")", "a whole; an entity", {"the team; it won"}},
        {R"(scarcely; "had scarcely rung the bell"- W.B.Yeats; "hardly knew")",
         "scarcely",
         {"had scarcely rung the bell", "hardly knew"}},
        {R"(impossible to avoid:"inescapable conclusion"; "no way out")",
         "impossible to avoid",
         {"inescapable conclusion", "no way out"}},
        {R"(in fear, "she hurried down")", "in fear", {"she hurried down"}},
        {R"(progress (as in "make strides"); "big strides")", R"(progress (as in "make strides"))", {"big strides"}},
        {R"(fueled by wood; "a wood-burning stove')", "fueled by wood", {}},
        {"(usually followed by `to') able", "(usually followed by 'to') able", {}},
        {"", "", {}},
    };
    for (const Case& c : cases) {
        const Gloss gloss = parse_gloss(c.text);
        EXPECT_EQ(gloss.definition, c.definition) << c.text;
        EXPECT_EQ(gloss.examples, c.examples) << c.text;
    }
}

TEST_F(WordnetChat, AsksEveryQuestionThatAWordCanAnswer) {
    write(tiny_wordnet);
    const Outcome outcome = run(train() + "--validation-share 0");
    ASSERT_EQ(outcome.exit, 0) << outcome.errors;
    std::map<std::string, std::string> answers;
    Lines text;
    for (const std::string& line : outcome.train) {
        const auto& [question, answer] = *answers.insert(turn(line)).first;
        text.insert(text.end(), {question, answer});
    }
    const std::map<std::string, std::string> expected{
        {"What part of speech is canine?", "Canine is a noun."},
        {"What does the noun canine mean?", "Canine means a carnivore with sharp teeth."},
        {"What part of speech is dog?", "Dog can be a noun or a verb."},
        {"What does the noun dog mean?", "Dog means a tame canid."},
        {"What is another word for the noun dog?", "Another word for dog is domestic dog."},
        {"Use the noun dog in a sentence.", "The dog barked all night."},
        {"What is dog a kind of?", "Dog is a kind of canine and of pet."},
        {"What does the verb dog mean?", "To dog means to go after."},
        {"What is another word for the verb dog?", "Another word for dog is chase."},
        {"Use the verb dog in a sentence.", "He was dogged by his creditors."},
        {"What part of speech is domestic dog?", "Domestic dog is a noun."},
        {"What does the noun domestic dog mean?", "Domestic dog means a tame canid."},
        {"What is another word for the noun domestic dog?", "Another word for domestic dog is dog."},
        {"What is domestic dog a kind of?", "Domestic dog is a kind of canine and of pet."},
        {"What part of speech is national capital?", "National capital is a noun."},
        {"What does the noun national capital mean?", "National capital means the seat of a government."},
        {"What part of speech is Paris?", "Paris is a noun."},
        {"What does the noun Paris mean?", "Paris means the capital and largest city of France."},
        {"What is Paris an instance of?", "Paris is an instance of national capital."},
        {"What part of speech is pet?", "Pet is a noun."},
        {"What does the noun pet mean?", "Pet means an animal kept for company."},
        {"What part of speech is chase?", "Chase is a verb."},
        {"What does the verb chase mean?", "To chase means to go after."},
        {"What is another word for the verb chase?", "Another word for chase is dog."},
        {"Use the verb chase in a sentence.", "The policeman chased the mugger."},
        {"What part of speech is galore?", "Galore is an adjective."},
        {"What does the adjective galore mean?", "Galore means existing in abundance."},
        {"What is another word for the adjective galore?", "Other words for galore are abounding and a-plenty."},
        {"Use the adjective galore in a sentence.", "There was whiskey galore that night."},
        {"What part of speech is barely?", "Barely is an adverb."},
        {"What does the adverb barely mean?", "Barely means only just; synonymous with 'hardly' in some uses."},
    };
    EXPECT_EQ(answers, expected);
    EXPECT_EQ(outcome.train.size(), expected.size());
    EXPECT_TRUE(outcome.validation.empty());
    EXPECT_EQ(outcome.text, text);
}

TEST_F(WordnetChat, LimitIsAPrefixAndRunsAgree) {
    write(tiny_wordnet);
    const Outcome whole = run(train() + "--validation-share 0"), again = run(train() + "--validation-share 0");
    EXPECT_EQ(whole.train, again.train);
    const Outcome limited = run(train() + "--validation-share 0 --limit 5");
    EXPECT_EQ(limited.train, Lines(whole.train.begin(), whole.train.begin() + 5));
}

TEST_F(WordnetChat, QuestionsBehindWorkedExamples) {
    write(tiny_wordnet);
    const Outcome plain = run(train() + "--validation-share 0.3"),
                  shots = run(train() + "--validation-share 0.3 --shots 3 --shot-sets 2");
    ASSERT_EQ(shots.exit, 0) << shots.errors;
    ASSERT_GT(plain.validation.size(), 0u);
    // The first six samples of training became examples, three to a set; rows take the sets in turn.
    ASSERT_EQ(shots.train.size() + 6, plain.train.size());
    ASSERT_EQ(shots.validation.size(), plain.validation.size());
    std::set<Json> beginnings;
    const auto check = [&](const std::string& line, const std::string& sample) {
        const Json row = Json::parse(line);
        Json prompt = row.at("prompt"), messages = Json::parse(sample).at("messages");
        EXPECT_EQ(row.at("completion"), Json::array({messages[1]}));
        EXPECT_EQ(prompt.back(), messages[0]);
        prompt.erase(prompt.size() - 1);
        beginnings.insert(std::move(prompt));
    };
    for (size_t i = 0; i < shots.train.size(); ++i) check(shots.train[i], plain.train[i + 6]);
    for (size_t i = 0; i < shots.validation.size(); ++i) check(shots.validation[i], plain.validation[i]);
    ASSERT_EQ(beginnings.size(), 2u);
    std::set<std::string> examples;
    for (const Json& beginning : beginnings) {
        ASSERT_EQ(beginning.size(), 7u);
        EXPECT_EQ(beginning[0].at("role"), "system");
        for (size_t i = 1; i < 7; i += 2)
            examples.insert(Json{{"messages", Json::array({beginning[i], beginning[i + 1]})}}.dump());
    }
    EXPECT_EQ(examples, std::set<std::string>(plain.train.begin(), plain.train.begin() + 6));

    const Outcome greedy = run(train() + "--shots 100");
    EXPECT_EQ(greedy.exit, 2);
    EXPECT_NE(greedy.errors.find("100 examples, but only"), std::string::npos) << greedy.errors;
}

// Words that share a definition, and all questions about a word, are either all in training or all held out.
TEST_F(WordnetChat, SplitsByWordAndItsSynonyms) {
    std::map<std::string, Lines> files;
    for (const char* part : {"noun", "verb", "adj", "adv"})
        files[std::string("data.") + part] = files[std::string("index.") + part] = {};
    const auto name = [](int i) { return std::string{char('a' + i / 26), char('a' + i % 26)}; };
    for (int i = 0; i < 400; ++i) {
        files["data.noun"].push_back(fmt::format("{0:08} 03 n 02 {1}lo 0 {1}hi 0 000 | sense {1}", i + 1, name(i)));
        for (const char* end : {"hi", "lo"})
            files["index.noun"].push_back(fmt::format("{}{} n 1 0 1 0 {:08}", name(i), end, i + 1));
    }
    write(files);
    const Outcome outcome = run(train() + "--validation-share 0.25");
    ASSERT_EQ(outcome.exit, 0) << outcome.errors;
    std::set<std::string> trained, held_out;  // first two letters of the words asked about
    for (const auto& [file, seen] : {std::pair{&outcome.train, &trained}, {&outcome.validation, &held_out}}) {
        for (const std::string& line : *file) {
            const std::string question = turn(line).first;
            const auto end =
                std::max(static_cast<int64_t>(question.rfind("lo")), static_cast<int64_t>(question.rfind("hi")));
            seen->insert(question.substr(static_cast<size_t>(end) - 2, 2));
        }
    }
    EXPECT_EQ(outcome.train.size() + outcome.validation.size(), 400u * 2 * 3);
    EXPECT_EQ(trained.size() + held_out.size(), 400u) << "a word is on both sides";
    EXPECT_EQ(outcome.validation.size(), held_out.size() * 2 * 3);
    EXPECT_NEAR(static_cast<double>(held_out.size()), 100, 35);  // four standard deviations of a fair draw
}

TEST_F(WordnetChat, BadInputIsOneClearErrorAndWritesNothing) {
    struct Case {
        const char *name, *file;
        Lines rows;
        const char* message;
    };
    const Case cases[] = {
        {"line ends early",
         "data.verb",
         {"00000002 38 v 02 chase 0 dog"},
         "data.verb:1: expected a lexical id, found the end of the line"},
        {"not a number",
         "data.adv",
         {"  1 licence", "00000001 02 r zz barely 0 000 | x"},
         "data.adv:2: expected a hexadecimal count of words, found 'zz'"},
        {"negative",
         "index.adv",
         {"barely r -1 0 1 1 00000001"},
         "index.adv:1: expected a count of synsets, found '-1'"},
        {"no words", "data.adv", {"00000001 02 r 00 000 | x"}, "data.adv:1: expected at least one word, found none"},
        {"no gloss",
         "data.adv",
         {"00000001 02 r 01 barely 0 000"},
         "data.adv:1: expected a gloss after '|', found none"},
        {"no such synset",
         "index.adj",
         {"galore a 1 0 1 0 00000009"},
         "index.adj:1: no synset at offset 9 in data.adj"},
        {"dangling hypernym",
         "data.noun",
         {"00000001 05 n 01 dog 0 001 @ 00000007 n 0000 | x", "00000002 05 n 01 y 0 000 | y",
          "00000003 05 n 01 y 0 000 | y", "00000004 05 n 01 y 0 000 | y", "00000005 05 n 01 y 0 000 | y"},
         "points to offset 7, where no synset begins"},
        {"not ASCII",
         "data.adv",
         {"00000001 02 r 01 barely 0 000 | d\xc3\xa9j\xc3\xa0 vu"},
         "data.adv:1: expected plain ASCII"},
    };
    for (const Case& c : cases) {
        write(tiny_wordnet);
        write({{c.file, c.rows}});
        const Outcome outcome = run(train());
        EXPECT_EQ(outcome.exit, 3) << c.name;
        EXPECT_NE(outcome.errors.find(c.message), std::string::npos) << c.name << ": " << outcome.errors;
        EXPECT_FALSE(std::filesystem::exists(folder_ + "/train.jsonl")) << c.name;
    }
    const Outcome missing = run(train(), folder_ + "/nowhere");
    EXPECT_EQ(missing.exit, 3);
    EXPECT_NE(missing.errors.find("nowhere/data.noun: no such file; install the package wordnet-base"),
              std::string::npos)
        << missing.errors;
    const Outcome usage = run("");
    EXPECT_EQ(usage.exit, 2);
    EXPECT_NE(usage.errors.find("--train is required"), std::string::npos) << usage.errors;
}

TEST_F(WordnetChat, TurnsTheWholeDictionaryIntoAHundredThousandSamples) {
    if (!std::filesystem::exists("/usr/share/wordnet/data.noun")) GTEST_SKIP() << "wordnet-base is not installed";
    const Outcome outcome = run(train(), "/usr/share/wordnet");
    ASSERT_EQ(outcome.exit, 0) << outcome.errors;
    const auto samples = static_cast<double>(outcome.train.size() + outcome.validation.size());
    EXPECT_GE(samples, 100000);
    EXPECT_NEAR(static_cast<double>(outcome.validation.size()) / samples, 0.03, 0.005);
    std::set<std::string> questions;
    for (const std::string& line : outcome.validation) questions.insert(turn(line).first);
    EXPECT_EQ(questions.size(), outcome.validation.size()) << "a question is asked twice";
    for (const std::string& line : outcome.train) {
        const size_t start = line.find("content") + 10;
        EXPECT_FALSE(questions.contains(line.substr(start, line.find('"', start) - start))) << line;
    }
}

}  // namespace
}  // namespace colonnade
