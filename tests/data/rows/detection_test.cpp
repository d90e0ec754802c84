// Detection: which format rows have, under which names, and which rows do not fit together.

#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class Detection : public RowTest {};

TEST_F(Detection, FindsUsualSpellings) {
    const struct {
        const char *json, *type, *columns, *chat;
    } cases[] = {
        {R"({"question": "q", "answer": "a"})", "alpaca", "instruction: question, output: answer",
         "(user: q) (assistant: a)"},
        {R"({"query": "q", "response": "a"})", "alpaca", "instruction: query, output: response",
         "(user: q) (assistant: a)"},
        {R"({"problem": "q", "solution": "a"})", "alpaca", "instruction: problem, output: solution",
         "(user: q) (assistant: a)"},
        {R"({"input": "q", "output": "a", "system": "s"})", "alpaca", "instruction: input",
         "(system: s) (user: q) (assistant: a)"},
        {R"({"instruction": "i", "context": "c", "response": "a"})", "alpaca", "output: response",
         "(user: i\nc) (assistant: a)"},
        {R"({"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})", "sharegpt",
         "conversations: messages", "(user: q) (assistant: a)"},
        {R"({"conversations": [{"role": "user", "content": "q"}]})", "messages", "messages: conversations",
         "(user: q)"},
        {R"({"conversation": [{"role": "human", "content": "q"}]})", "messages", "messages: conversation", "(user: q)"},
        {R"({"conversation": [{"from": "human", "value": "q"}]})", "sharegpt", "conversations: conversation",
         "(user: q)"},
        {R"({"dialog": [{"role": "user", "content": "q"}]})", "messages", "messages: dialog", "(user: q)"},
        {R"({"system_prompt": "s", "question": "q", "response": "a", "id": "x"})", "alpaca",
         "instruction: question, output: response, system: system_prompt", "(system: s) (user: q) (assistant: a)"},
        {R"({"system_prompt": "s", "prompt": "q", "completion": "a"})", "alpaca",
         "instruction: prompt, output: completion, system: system_prompt", "(system: s) (user: q) (assistant: a)"},
        {R"({"text": "t", "messages": [{"role": "user", "content": "q"}]})", "messages", "", "(user: q)"},
    };
    for (const auto& [json, type, columns, chat] : cases) {
        EXPECT_EQ(chat_text(first_row(json)), chat) << json;
        EXPECT_EQ(type_, type) << json;
        EXPECT_EQ(found_columns_, columns) << json;
        EXPECT_EQ(chat_text(first_row(json, RowKind::texts, {.path = "", .type = type})), chat)
            << json << " with its type";
    }
}

TEST_F(Detection, ReadsPreferencesWithSystemAndQuestion) {
    const auto chosen = [&](const std::string& json) {
        const Row row = first_row(json, RowKind::preferences);
        EXPECT_TRUE(row.unused.empty()) << json << ": " << fmt::format("{}", fmt::join(row.unused, " "));
        return chat_text(row.answers[0]);
    };
    const std::string asked = "(system: You are terse.) (user: What?) | (assistant: c)";
    EXPECT_EQ(chosen(R"({"system": "You are terse.", "question": "What?", "chosen": "c", "rejected": "r"})"), asked);
    EXPECT_EQ(
        chosen(R"({"system": "You are terse.", "input": "What?", "chosen": "c", "rejected": "r", "rating": [9, 1]})"),
        asked);
    EXPECT_EQ(chosen(R"({"system": "You are terse.", "prompt": "What?", "chosen": "c", "rejected": "r"})"), asked);
    EXPECT_EQ(chosen(R"({"system_prompt": "You are terse.", "prompt": "What?", "chosen": "c", "rejected": "r"})"),
              asked);
    EXPECT_EQ(
        chosen(R"({"question": "What?", "system": "You are terse.", "chosen": {"role": "assistant", "content": "c"},
                         "rejected": {"role": "assistant", "content": "r"}})"),
        asked);
    EXPECT_EQ(chosen(R"({"system": "You are terse.", "prompt": [{"role": "user", "content": "What?"}], "chosen": "c",
                         "rejected": "r"})"),
              asked);
    EXPECT_EQ(
        chosen(R"({"system": "You are terse.", "prompt": "What?", "completions": [{"role": "assistant", "content": "c"},
                         {"role": "assistant", "content": "r"}]})"),
        asked);
    const Row row =
        first_row(R"({"tools": [{"name": "f"}], "prompt": "What?", "chosen": [{"role": "assistant", "content": "c"}],
                                  "rejected": [{"role": "assistant", "content": "r"}]})",
                  RowKind::preferences);
    EXPECT_EQ(row.answers[1].variables.dump(), R"({"tools":[{"name":"f"}]})");
}

/// The most used preference data set has the chosen conversation in `messages` too. The stage decides what it is.
TEST_F(Detection, PrefersTheStageAskedFor) {
    const char* row =
        R"({"prompt": "What?", "prompt_id": "ab12", "chosen": [{"content": "What?", "role": "user"}, {"content": "c",
            "role": "assistant"}], "rejected": [{"content": "What?", "role": "user"}, {"content": "r", "role": "assistant"}],
            "messages": [{"content": "What?", "role": "user"}, {"content": "c", "role": "assistant"}],
            "score_chosen": 8.0, "score_rejected": 3.0})";
    const Row pair = first_row(row, RowKind::preferences);
    EXPECT_EQ(type_, "preference");
    ASSERT_EQ(pair.answers.size(), 2u);
    EXPECT_EQ(chat_text(pair.answers[0]), "(user: What?) | (assistant: c)");
    EXPECT_EQ(chat_text(pair.answers[1]), "(user: What?) | (assistant: r)");
    EXPECT_TRUE(pair.unused.empty());
    // A prompt that is no message of the conversations is not used, and counted.
    std::string other = row;
    other.replace(other.find("What?"), 5, "Why?");
    EXPECT_EQ(first_row(other, RowKind::preferences).unused, (std::vector<std::string>{"prompt"}));
    EXPECT_EQ(type_, "preference");
    const Row chat = first_row(row);
    EXPECT_EQ(chat_text(chat), "(user: What?) (assistant: c)");
    EXPECT_EQ(chat.unused, (std::vector<std::string>{"prompt", "chosen", "rejected"}));
    expect_error(Exit::data,
                 "key 'messages': ends with an answer of the assistant; expected the prompt alone; type preference",
                 [&] { (void)first_row(row, RowKind::preferences, {.path = "", .type = "messages"}); });
}

TEST_F(Detection, LooksAtMoreThanTheFirstRow) {
    const auto type_of = [&](const std::string& rows) {
        spill(path("rows.jsonl"), rows);
        return RowReader({.path = path("rows.jsonl")}).type();
    };
    const std::string chat = R"({"text": "t", "messages": [{"role": "user", "content": "q"}]})",
                      text = R"({"text": "t"})";
    EXPECT_EQ(type_of(chat + "\n" + chat), "messages");
    EXPECT_EQ(type_of(text + "\n" + chat), "text") << "the one format that all rows have";
    EXPECT_EQ(type_of(R"({"prompt": "p", "completion": "c"})"
                      "\n"
                      R"({"prompt": "p", "completion": "c", "system": "s"})"),
              "alpaca");
    expect_error(Exit::data,
                 "rows.jsonl: the rows have different formats: prompt_completion {prompt, completion} first at ", [&] {
                     type_of(R"({"prompt": "p", "completion": "c"})"
                             "\n" +
                             text);
                 });
    expect_error(Exit::data,
                 R"(rows.jsonl:2: cannot detect the format of this row; found keys: "txt"; expected tokens)", [&] {
                     type_of(text +
                             "\n"
                             R"({"txt": "t"})");
                 });
    // Bad JSON further down is an error of that row, after the rows before it.
    spill(path("rows.jsonl"), text + "\n{bad\n");
    RowReader rows({.path = path("rows.jsonl")});
    Row row;
    EXPECT_TRUE(rows.next(row));
    expect_error(Exit::data, "rows.jsonl:2: column 2: invalid JSON", [&] { rows.next(row); });
}

}  // namespace
}  // namespace colonnade
