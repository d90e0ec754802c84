// Rows of preferences: every format becomes answers with their prompt in front, and errors name the place.

#include "data/rows/rows.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

/// One answer with its prompt: "(user: q) | (assistant: a)", "<prompt>answer", or "ids / labels".
std::string shown(const Row& row) {
    std::string text;
    for (size_t i = 0; i < row.messages.size(); ++i) {
        if (static_cast<int64_t>(i) == row.prompt_messages) text += "| ";
        text += fmt::format("({}: {}) ", row.messages[i].role, row.messages[i].content);
    }
    if (row.prompt) text += "<" + *row.prompt + ">";
    if (row.completion) text += *row.completion;
    if (!row.input_ids.empty())
        text += fmt::format("{} / {}", fmt::join(row.input_ids, " "), fmt::join(row.labels, " "));
    return text;
}

class PreferenceRows : public FileTest {
  protected:
    std::string first(std::string json, std::string type = "auto", Columns columns = {}) const {
        std::erase(json, '\n');
        spill(path("rows.jsonl"), json);
        RowReader rows({path("rows.jsonl"), std::move(type), std::move(columns)}, RowKind::preferences);
        Row row;
        EXPECT_TRUE(rows.next(row));
        EXPECT_TRUE(row.messages.empty() && !row.prompt && !row.completion && row.input_ids.empty());
        std::string text = rows.type() + ":";
        for (const Row& answer : row.answers) text += "\n" + shown(answer);
        for (const auto& [better, worse, margin, weight] : row.pairs)
            text += fmt::format("\n{} > {}, margin {}, weight {}", better, worse, margin, weight);
        if (row.weight != 1) text += fmt::format("\nweight {}", row.weight);
        if (row.whole_answers) text += "\nwhole";
        if (row.margin != 0) text += fmt::format("\nmargin {}", row.margin);
        return text;
    }
};

TEST_F(PreferenceRows, ReadsAndDetectsEveryFormat) {
    const struct {
        const char *json, *expected;
    } cases[] = {
        // preference, explicit prompt
        {R"({"prompt": "p ", "chosen": "c", "rejected": "r"})", "preference:\n<p >c\n<p >r"},
        {R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": -0.5, "score": 3})",
         "preference:\n<p>c\n<p>r\nmargin -0.5"},
        {R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
             "chosen": [{"role": "assistant", "content": "c"}], "rejected": [{"role": "assistant", "content": "r"}]})",
         "preference:\n(system: s) (user: q) | (assistant: c) \n(system: s) (user: q) | (assistant: r) "},
        {R"({"prompt": [{"role": "user", "content": "q"}], "chosen": {"role": "assistant", "content": "c"},
             "rejected": {"role": "assistant", "content": "r"}})",
         "preference:\n(user: q) | (assistant: c) \n(user: q) | (assistant: r) "},
        {R"({"prompt": [{"role": "user", "content": "q"}], "chosen": "c", "rejected": "r"})",
         "preference:\n(user: q) | (assistant: c) \n(user: q) | (assistant: r) "},
        {R"({"prompt": "q", "chosen": [{"role": "assistant", "content": "c"}],
             "rejected": [{"role": "assistant", "content": "r"}]})",
         "preference:\n(user: q) | (assistant: c) \n(user: q) | (assistant: r) "},
        // preference, implicit prompt: the common beginning of the conversations, earlier answers included
        {R"({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
                        {"role": "user", "content": "q2"}, {"role": "assistant", "content": "c"}],
             "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
                          {"role": "user", "content": "q2"}, {"role": "assistant", "content": "r"}], "margin": 2})",
         "preference:\n(user: q) (assistant: a) (user: q2) | (assistant: c) \n"
         "(user: q) (assistant: a) (user: q2) | (assistant: r) \nmargin 2"},
        // ... but each keeps at least one message, even if they are equal or one ends early
        {R"({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
             "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
                          {"role": "user", "content": "q2"}, {"role": "assistant", "content": "r"}]})",
         "preference:\n(user: q) | (assistant: a) \n(user: q) | (assistant: a) (user: q2) (assistant: r) "},
        // UltraFeedback: the first question once more as a string
        {R"({"prompt": "q", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "c"}],
             "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]})",
         "preference:\n(user: q) | (assistant: c) \n(user: q) | (assistant: r) "},
        {R"({"prompt": [{"role": "user", "content": "q"}],
             "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "c"}],
             "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]})",
         "preference:\n(user: q) | (assistant: c) \n(user: q) | (assistant: r) "},
        {R"({"chosen": "Human: hi AI: c", "rejected": "Human: hi AI: r"})",
         "preference:\nHuman: hi AI: c\nHuman: hi AI: r\nwhole"},
        // Axolotl
        {R"({"messages": [{"role": "user", "content": "q"}], "chosen": {"role": "assistant", "content": "c"},
             "rejected": {"role": "assistant", "content": "r"}})",
         "messages:\n(user: q) | (assistant: c) \n(user: q) | (assistant: r) "},
        // LLaMA-Factory
        {R"({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "c"},
             "rejected": {"from": "gpt", "value": "r"}, "system": "s"})",
         "sharegpt:\n(system: s) (user: q) | (assistant: c) \n(system: s) (user: q) | (assistant: r) "},
        {R"({"instruction": "i", "input": "x", "chosen": "c", "rejected": "r", "history": [["q", "a"]]})",
         "alpaca:\n(user: q) (assistant: a) (user: i\nx) | (assistant: c) \n"
         "(user: q) (assistant: a) (user: i\nx) | (assistant: r) "},
        // rankings
        {R"({"prompt": "p", "completions": ["a", "b", "c"]})", "ranked:\n<p>a\n<p>b\n<p>c"},
        {R"({"prompt": [{"role": "user", "content": "q"}], "completions": ["a", "b"]})",
         "ranked:\n(user: q) | (assistant: a) \n(user: q) | (assistant: b) "},
        {R"({"prompt": "q", "completions": [[{"role": "assistant", "content": "a"}], {"role": "assistant", "content": "b"}]})",
         "ranked:\n(user: q) | (assistant: a) \n(user: q) | (assistant: b) "},
        // pairs of a ranking; answers that none compares are left out
        {R"({"prompt": "p", "completions": ["a", "b", "c", "d"], "weight": 3,
             "pairs": [[3, 0], {"better": 0, "worse": 2, "margin": 0.5, "weight": 0.25}]})",
         "ranked:\n<p>a\n<p>c\n<p>d\n2 > 0, margin 0, weight 1\n0 > 1, margin 0.5, weight 0.25\nweight 3"},
        // a weight of the pair, in any format
        {R"({"instruction": "i", "chosen": "c", "rejected": "r", "weight": 0.5})",
         "alpaca:\n(user: i) | (assistant: c) \n(user: i) | (assistant: r) \nweight 0.5"},
        {R"({"chosen_input_ids": [1, 2], "rejected_input_ids": [1, 4], "weight": 2})",
         "tokens:\n1 2 / 1 2\n1 4 / 1 4\nweight 2\nwhole"},
        // tokens
        {R"({"prompt_input_ids": [1, 2], "chosen_input_ids": [3], "rejected_input_ids": [4, 5]})",
         "tokens:\n1 2 3 / -100 -100 3\n1 2 4 5 / -100 -100 4 5"},
        {R"({"chosen_input_ids": [1, 2, 3], "rejected_input_ids": [1, 4]})",
         "tokens:\n1 2 3 / 1 2 3\n1 4 / 1 4\nwhole"},
        {R"({"chosen_input_ids": [1, 2, 3], "rejected_input_ids": [1, 4], "chosen_labels": [-100, 2, -100],
             "rejected_labels": [-100, 4]})",
         "tokens:\n1 2 3 / -100 2 -100\n1 4 / -100 4"},
    };
    for (const auto& [json, expected] : cases) EXPECT_EQ(first(json), expected) << json;
    EXPECT_EQ(first(R"({"question": "q", "response_j": "c", "response_k": "r"})", "auto",
                    {{"prompt", "question"}, {"chosen", "response_j"}, {"rejected", "response_k"}}),
              "preference:\n<q>c\n<q>r");
    EXPECT_EQ(first(R"({"context": [{"from": "user", "text": "q"}], "answers": ["a", "b"]})", "ranked",
                    {{"prompt", "context"}, {"completions", "answers"}, {"role", "from"}, {"content", "text"}}),
              "ranked:\n(user: q) | (assistant: a) \n(user: q) | (assistant: b) ");
}

TEST_F(PreferenceRows, RefusesBadRowsWithPlaceFoundAndExpected) {
    const struct {
        const char *type, *json, *part;
    } cases[] = {
        {"preference", R"({"chosen": "c"})", R"(rows.jsonl:1: key 'rejected' is missing; found keys: "chosen")"},
        {"preference", R"({"prompt": "p", "chosen": "c", "rejected": 3})",
         "rows.jsonl:1: rejected: expected a string, a message or a list of messages, found number"},
        {"preference", R"({"prompt": "p", "chosen": [], "rejected": "r"})", "rows.jsonl:1: chosen: the list is empty"},
        {"preference", R"({"prompt": "p", "chosen": "c", "rejected": [{"role": "assistant", "content": "r"}]})",
         "rows.jsonl:1: chosen is a string, but rejected is messages; expected every answer of a row in the same form"},
        {"preference",
         R"({"chosen": [{"role": "user", "content": "q"}, {"role": "bot", "content": "r"}], "rejected": "r"})",
         R"(rows.jsonl:1: chosen[1]: unknown role "bot"; expected one of system, developer, user)"},
        {"preference", R"({"topic": "q", "chosen": {"role": "assistant", "content": "c"},
                           "rejected": {"role": "assistant", "content": "r"}})",
         "chosen begins with a message from role 'assistant', and the row has no key 'prompt'; found keys: "
         "\"topic\""},
        {"preference", R"({"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "user", "content": "q"}],
                           "rejected": [{"role": "assistant", "content": "r"}]})",
         "rows.jsonl:1: chosen begins with a message from role 'user'; expected the answer alone"},
        {"preference", R"({"prompt": 3, "chosen": "c", "rejected": "r"})", "rows.jsonl:1: prompt: expected a string"},
        {"preference", R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": "big"})",
         "key 'margin': expected a number, found string"},
        {"preference", R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": 1e300})",
         "key 'margin': expected a number in the range of float32, found 1e+300"},
        {"messages", R"({"messages": [], "chosen": "c", "rejected": "r"})", "key 'messages': the list is empty"},
        {"sharegpt",
         R"({"conversations": [{"from": "human", "value": "q"}], "chosen": {"role": "assistant", "content": "c"},
                         "rejected": {"from": "gpt", "value": "r"}})",
         R"(chosen: key 'from' is missing; found keys: "role", "content")"},
        {"alpaca", R"({"instruction": "i", "chosen": ["c"], "rejected": "r"})",
         "key 'chosen': expected a string, found array"},
        {"ranked", R"({"prompt": "p", "completions": ["a"]})", "expected at least two answers to compare, found one"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "margin": 1})",
         "rows.jsonl:1: key 'margin': a ranking has no margin; each of its 'pairs' may have one"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": []})",
         "rows.jsonl:1: key 'pairs': the list is empty"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": [[0, 1], [0, 2]]})",
         "rows.jsonl:1: pairs[1][1]: expected the number of an answer, 0 to 1, found 2"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": [{"better": 0, "worse": -1}]})",
         "rows.jsonl:1: pairs[0]: key 'worse': expected the number of an answer, 0 to 1, found -1"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": [{"better": 0}]})",
         "rows.jsonl:1: pairs[0]: key 'worse' is missing; found keys: \"better\""},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": ["0 > 1"]})",
         "rows.jsonl:1: pairs[0]: expected [better, worse] or an object with these keys, found \"0 > 1\""},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": [[1, 1]]})",
         "rows.jsonl:1: pairs[0]: answer 1 is compared with itself; expected two answers"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b", "c"], "pairs": [[0, 1], [1, 2], [1, 0]]})",
         "rows.jsonl:1: pairs[2]: answers 1 and 0 are compared in pairs[0] already; expected one pair of them"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": [{"better": 0, "worse": 1, "score": 2}]})",
         "rows.jsonl:1: pairs[0]: key 'score' of a pair is unknown; expected better, worse, margin, weight"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "pairs": [{"better": 0, "worse": 1, "weight": -1}]})",
         "rows.jsonl:1: pairs[0]: key 'weight': expected a weight, 0 or a number from 1e-9 to 1e9, found -1"},
        {"preference", R"({"prompt": "p", "chosen": "c", "rejected": "r", "weight": "high"})",
         "rows.jsonl:1: key 'weight': expected a weight, 0 or a number from 1e-9 to 1e9, found \"high\""},
        {"ranked", R"({"prompt": "p", "completions": ["a", null]})",
         "completions[1]: expected a string, a message or a list of messages, found null"},
        {"ranked", R"({"prompt": "p", "completions": ["a", "b"], "labels": [true, false]})",
         "rows.jsonl:1: 'completions' with 'labels' is stepwise supervision, which is not supported"},
        {"tokens", R"({"chosen_input_ids": [1], "rejected_input_ids": []})",
         "key 'rejected_input_ids': the list is empty"},
        {"tokens", R"({"chosen_input_ids": [1, -2], "rejected_input_ids": [1]})",
         "chosen_input_ids[1]: expected a token id, found -2"},
        {"tokens", R"({"chosen_input_ids": [1], "rejected_input_ids": [1], "chosen_labels": [1]})",
         "found only one of 'chosen_labels' and 'rejected_labels' (or loss masks); expected both or neither"},
        {"tokens",
         R"({"chosen_input_ids": [1, 2], "rejected_input_ids": [1], "chosen_labels": [1], "rejected_labels": [1]})",
         "'chosen_labels' has 1 entries, 'chosen_input_ids' has 2; expected the same number"},
        {"auto", R"({"messages": [{"role": "user", "content": "q"}]})",
         "rows.jsonl:1: cannot detect the format of this row of preferences; found keys: \"messages\"; expected tokens "
         "{chosen_input_ids, rejected_input_ids}, messages {messages, chosen, rejected}"},
        {"auto", R"({"prompt": "p", "completion": "c"})",
         "rename keys with columns; rows without answers to compare need stage pt or sft"},
    };
    for (const auto& [type, json, part] : cases)
        expect_error(Exit::data, part, [&, &json = json, &type = type] { first(json, type); });
    expect_error(Exit::config, "unknown type 'text'; expected a type of preferences: auto, tokens",
                 [&] { first("{}", "text"); });
    expect_error(Exit::config, "type ranked has no key 'chosen' to read from 'best'", [&] {
        first("{}", "ranked", {{"chosen", "best"}});
    });
    spill(path("texts.jsonl"), R"({"chosen": "a", "rejected": "b"})");
    expect_error(Exit::data, "; rows with answers to compare need stage dpo or rm",
                 [&] { RowReader({.path = path("texts.jsonl")}); });
}

/// The first rows decide the format; a later row of another format is an error that names its line.
TEST_F(PreferenceRows, ALaterRowOfAnotherFormatIsAnError) {
    const std::string pair = "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}\n",
                      ranking = "{\"prompt\": \"p\", \"completions\": [\"a\", \"b\"]}\n";
    spill(path("rows.jsonl"), pair + ranking);
    expect_error(Exit::data, "rows.jsonl: the rows have different formats: preference {chosen, rejected} first at ",
                 [&] { RowReader({.path = path("rows.jsonl")}, RowKind::preferences); });
    std::string many;
    for (int i = 0; i < 64; ++i) many += pair;
    spill(path("rows.jsonl"), many + ranking);
    RowReader rows({.path = path("rows.jsonl")}, RowKind::preferences);
    Row row;
    for (int i = 0; i < 64; ++i) ASSERT_TRUE(rows.next(row));
    expect_error(Exit::data, R"(rows.jsonl:65: key 'chosen' is missing; found keys: "prompt", "completions")",
                 [&] { rows.next(row); });
}

TEST_F(PreferenceRows, AnswersThatAreComparedHaveNoWeights) {
    const auto pair = [](const char* weight) {
        return fmt::format(R"({{"prompt": [{{"role": "user", "content": "q", "weight": 0}}],
            "chosen": [{{"role": "assistant", "content": "c"}}],
            "rejected": [{{"role": "assistant", "content": "r", "weight": {}}}]}})",
                           weight);
    };
    EXPECT_EQ(first(pair("1.0")), "preference:\n(user: q) | (assistant: c) \n(user: q) | (assistant: r) ");
    expect_error(Exit::data,
                 "rows.jsonl:1: message 1 of the prompt with answer 1 has weight 0.5; expected 0 or 1: answers are "
                 "compared as a whole, and weight of the row is that of the comparison",
                 [&] { (void)first(pair("0.5")); });
}

}  // namespace
}  // namespace colonnade
