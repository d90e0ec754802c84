#include "data/rows/rows.h"

#include "tests/support/file_test.h"

namespace colonnade {
namespace {

/// A row as one line: (role: content) for each message, or the strings, or the ids and labels.
std::string shown(const Row& row) {
    std::string text;
    for (const Message& m : row.messages)
        text += fmt::format("({}: {}{})", m.role, m.content, m.weight ? (*m.weight > 0 ? " +" : " -") : "");
    if (row.prompt_messages) text += fmt::format(" prompt {}", row.prompt_messages);
    if (row.prompt) text += "<" + *row.prompt + ">";
    if (row.completion) text += "<<" + *row.completion + ">>";
    if (!row.input_ids.empty())
        text += fmt::format("{} | {}", fmt::join(row.input_ids, " "), fmt::join(row.labels, " "));
    return text;
}

class Rows : public FileTest {
  protected:
    std::string file(std::string_view content) const {
        spill(path("rows.jsonl"), content);
        return path("rows.jsonl");
    }
    RowReader reader(std::string_view content, std::string type = "auto",
                     std::map<std::string, std::string> columns = {}) const {
        return RowReader({.path = file(content), .type = std::move(type), .columns = std::move(columns)});
    }
    std::string first(std::string_view content, std::string type = "auto",
                      std::map<std::string, std::string> columns = {}) const {
        RowReader rows = reader(content, std::move(type), std::move(columns));
        Row row;
        EXPECT_TRUE(rows.next(row));
        return rows.type() + ": " + shown(row);
    }
};

TEST_F(Rows, ReadsAndDetectsEveryFormat) {
    const struct {
        const char *json, *expected;
    } cases[] = {
        {R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})",
         "messages: (system: s)(user: q)(assistant: a)"},
        {R"({"messages": [{"role": "developer", "content": "d"}, {"role": "tool", "content": "t"}], "text": "the same as text"})",
         "messages: (system: d)(tool: t)"},
        {R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})",
         "messages: (user: ab)"},
        {R"({"messages": [{"role": "user", "content": "q", "train": true}, {"role": "assistant", "content": "a", "train": false},
             {"role": "assistant", "content": "b", "weight": 0}, {"role": "assistant", "content": "c", "weight": 1},
             {"role": "assistant", "content": "d", "weight": null}]})",
         "messages: (user: q +)(assistant: a -)(assistant: b -)(assistant: c +)(assistant: d)"},
        {R"({"prompt": "p", "completion": ""})", "prompt_completion: <p><<>>"},
        {R"({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]})",
         "prompt_completion: (user: q)(assistant: a) prompt 1"},
        {R"({"instruction": "i", "input": "", "output": "o"})", "alpaca: (user: i)(assistant: o)"},
        {R"({"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["q1", "a1"], ["q2", "a2"]]})",
         "alpaca: (system: s)(user: q1)(assistant: a1)(user: q2)(assistant: a2)(user: i\nx)(assistant: o)"},
        {R"({"instruction": "i", "input": null, "output": "o", "system": null, "history": []})",
         "alpaca: (user: i)(assistant: o)"},
        {R"({"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}], "system": "s"})",
         "sharegpt: (system: s)(user: h)(assistant: g)"},
        {R"({"conversations": [{"from": "system", "value": "s"}, {"from": "user", "value": "u"},
             {"from": "observation", "value": "o"}, {"from": "gpt", "value": "g"}]})",
         "sharegpt: (system: s)(user: u)(tool: o)(assistant: g)"},
        {R"({"text": "caf\u00e9", "meta": {"source": 1}})", "text: <<café>>"},
        {R"({"input_ids": [0, 5, 2147483647]})", "tokens: 0 5 2147483647 | 0 5 2147483647"},
        {R"({"input_ids": [1, 2, 3], "labels": [-100, 2, -100]})", "tokens: 1 2 3 | -100 2 -100"},
        {R"({"input_ids": [1, 2, 3, 0, 0], "labels": [1, 2, 3, -100, -100], "attention_mask": [1, 1, 1, 0, 0]})",
         "tokens: 1 2 3 | 1 2 3"},
    };
    for (const auto& [json, expected] : cases) {
        std::string line = json;
        std::erase(line, '\n');
        EXPECT_EQ(first(line), expected) << json;
    }
}

TEST_F(Rows, EveryFormatOfTextsTakesAWeight) {
    const auto weight = [&](const std::string& json, std::map<std::string, std::string> columns = {}) {
        RowReader rows = reader(json, "auto", std::move(columns));
        Row row;
        EXPECT_TRUE(rows.next(row));
        EXPECT_TRUE(row.unused.empty());
        return row.weight;
    };
    for (const char* keys :
         {R"("text": "a")", R"("prompt": "p", "completion": "c")", R"("instruction": "i", "output": "o")",
          R"("question": "q", "answer": "a")", R"("messages": [{"role": "assistant", "content": "a"}])",
          R"("conversations": [{"from": "gpt", "value": "a"}])", R"("input_ids": [1, 2])"}) {
        EXPECT_EQ(weight(fmt::format("{{{}, \"weight\": 2.5}}", keys)), 2.5f) << keys;
        EXPECT_EQ(weight(fmt::format("{{{}, \"weight\": 0}}", keys)), 0) << keys;
        EXPECT_EQ(weight(fmt::format("{{{}, \"weight\": null}}", keys)), 1) << keys;
        EXPECT_EQ(weight(fmt::format("{{{}, \"importance\": 3}}", keys), {{"weight", "importance"}}), 3) << keys;
    }
    for (const auto& [value, found] : std::map<std::string, std::string>{{"-1", "-1; a loss with a negative weight"},
                                                                         {"NaN", "NaN"},
                                                                         {"1e30", "1e+30"},
                                                                         {"1e-30", "1e-30"},
                                                                         {"true", "true"},
                                                                         {"\"2\"", "\"2\""},
                                                                         {"[2]", "[2]"}})
        expect_error(Exit::data,
                     "rows.jsonl:1: key 'weight': expected a weight, 0 or a number from 1e-9 to 1e9, found " + found,
                     [&] { (void)weight(fmt::format(R"({{"text": "a", "weight": {}}})", value)); });
}

TEST_F(Rows, ColumnsRenameKeysAtEveryLevel) {
    EXPECT_EQ(first(R"({"question": "q", "reply": "r", "prompt": 3})", "auto",
                    {{"prompt", "question"}, {"completion", "reply"}}),
              "prompt_completion: <q><<r>>");
    EXPECT_EQ(first(R"({"conversations": [{"from": "user", "value": "q"}]})", "messages",
                    {{"messages", "conversations"}, {"role", "from"}, {"content", "value"}}),
              "messages: (user: q)");
}

TEST_F(Rows, StreamsLinesWithTheirNumbers) {
    RowReader rows = reader("\xEF\xBB\xBF\n{\"text\": \"a\"}\r\n\n  \t\n{\"text\": \"b\"}\n{\"text\": \"c\"}");
    EXPECT_LT(rows.progress(), 1.0);
    Row row;
    std::string seen;
    while (rows.next(row)) seen += fmt::format("{}@{} ", *row.completion, row.line);
    EXPECT_EQ(seen, "a@2 b@5 c@6 ");
    EXPECT_EQ(rows.progress(), 1.0);
    EXPECT_FALSE(rows.next(row));
}

TEST_F(Rows, TextsParseElsewhere) {
    RowReader rows = reader("{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n");
    RowText row;
    ASSERT_TRUE(rows.next_text(row));
    EXPECT_EQ(row.number, 1);
    EXPECT_EQ(row.text, "{\"text\": \"a\"}");
    ASSERT_TRUE(rows.next_text(row));
    EXPECT_EQ(row.number, 3);
    EXPECT_EQ(rows.parse(row).line, 3);
    EXPECT_FALSE(rows.next_text(row));
}

TEST_F(Rows, PlacesSayWhatTheyCount) {
    expect_error(Exit::data, "rows.jsonl: row 2: key 'text' is missing", [&] {
        RowReader rows = reader("[{\"text\": \"a\"},\n{\"txt\": 1}]", "text");
        for (Row row; rows.next(row);) {
        }
    });
    expect_error(Exit::data, "rows.jsonl: row 1: line 2, column 5: invalid JSON",
                 [&] { reader("[{\"text\":\n\"a\" 1}]"); });
}

TEST_F(Rows, AreTakenFromAllFilesOfAFolder) {
    std::filesystem::create_directories(path("data"));
    spill(path("data/b.json"), "[{\"text\": \"b1\"}, {\"text\": \"b2\"}]");
    spill(path("data/a.jsonl"), "{\"text\": \"a1\"}\n\n{\"text\": \"a2\"}\n");
    spill(path("data/c.jsonl"), "");
    spill(path("data/d.ndjson"), "{\"text\": \"d1\"}");
    const auto texts = [&](DatasetSpec spec) {
        spec.path = path("data");
        RowReader rows(spec);
        std::string all;
        for (RowText row; rows.next_text(row);)
            all += fmt::format("{}@{} ", *rows.parse(row).completion, rows.place(row).substr(path("data/").size()));
        EXPECT_EQ(rows.progress(), 1.0);
        return all;
    };
    EXPECT_EQ(texts({}), "a1@a.jsonl:1 a2@a.jsonl:3 b1@b.json: row 1 b2@b.json: row 2 d1@d.ndjson:1 ");
    // Splits and max_samples count the rows of all files.
    EXPECT_EQ(texts({.split = "train[1:3]"}), "a2@a.jsonl:3 b1@b.json: row 1 ");
    EXPECT_EQ(texts({.split = "train[-2:]"}), "b2@b.json: row 2 d1@d.ndjson:1 ");
    EXPECT_EQ(texts({.split = "train[20%:60%]"}), "a2@a.jsonl:3 b1@b.json: row 1 ");
    EXPECT_EQ(texts({.split = "train[1:]", .max_samples = 1}), "a2@a.jsonl:3 ");
    EXPECT_EQ(texts({.max_samples = 3}), "a1@a.jsonl:1 a2@a.jsonl:3 b1@b.json: row 1 ");
    expect_error(Exit::data, "data: split train[9:] takes none of its rows: it has 5",
                 [&] { texts({.split = "train[9:]"}); });
    expect_error(Exit::data, "data: split train[3:3] takes none of its rows", [&] { texts({.split = "train[3:3]"}); });
    expect_error(Exit::config, "split 'train[1'; expected a split such as train", [&] { texts({.split = "train[1"}); });
}

TEST_F(Rows, LineLimitIsExact) {
    const std::string head = "{\"text\": \"", tail = "\"}";
    const size_t limit = size_t{16} << 20;
    const std::string filled = head + std::string(limit - head.size() - tail.size(), 'x') + tail;
    for (const std::string& longest : {filled + "\n{\"text\": \"b\"}\n", filled}) {
        RowReader rows = reader(longest);
        Row row;
        ASSERT_TRUE(rows.next(row));
        EXPECT_EQ(row.completion->size(), limit - head.size() - tail.size());
    }
    expect_error(Exit::data, "rows.jsonl:2: the line is longer than 16 MiB", [&] {
        RowReader rows = reader("{\"text\": \"a\"}\n " + filled + "\n");
        for (Row row; rows.next(row);) {
        }
    });
}

TEST_F(Rows, RefusesBadFiles) {
    expect_error(Exit::data, "absent.jsonl: cannot open: No such file",
                 [&] { RowReader({.path = path("absent.jsonl")}); });
    std::filesystem::create_directories(path("empty"));
    expect_error(Exit::data, "empty: the folder has no data file", [&] { RowReader({.path = path("empty")}); });
    expect_error(Exit::data, "rows.jsonl: no rows: the file is empty", [&] { reader(""); });
    expect_error(Exit::data, "rows.jsonl: no rows: the file is empty", [&] { reader("\n \n\r\n", "text"); });
    expect_error(Exit::config,
                 "unknown type 'chatml'; expected auto, tokens {input_ids}, messages {messages}, sharegpt",
                 [&] { reader("{}", "chatml"); });
    expect_error(Exit::config, "type text has no key 'prompt' to read from 'q'", [&] {
        reader("{}", "text", {{"prompt", "q"}});
    });
    expect_error(Exit::data, "rows.jsonl: row 1: expected an object, found array",
                 [&] { reader("[[{\"text\": \"a\"}]]"); });
    expect_error(Exit::data, "rows.jsonl:1: expected an object, found string", [&] { reader("\"text\""); });
    expect_error(
        Exit::data,
        "rows.jsonl:2: cannot detect the format of this row; found keys: \"chosen\", \"rejected\"; expected tokens",
        [&] { reader("\n{\"chosen\": \"a\", \"rejected\": \"b\"}"); });
}

TEST_F(Rows, RefusesBadRowsWithPlaceFoundAndExpected) {
    const struct {
        const char *type, *json, *part;
    } cases[] = {
        {"text", R"({"text": "a")", "rows.jsonl:1: column"},
        {"text", "{\"text\": \"\xff\"}", "ill-formed UTF-8"},
        {"text", R"({"text": "a", "text": "b"})", "duplicate key 'text'"},
        {"text", R"({"txt": "a"})", R"(rows.jsonl:1: key 'text' is missing; found keys: "txt")"},
        {"text", R"({"text": null})", "key 'text' is null"},
        {"text", R"({"text": ["a"]})", "key 'text': expected a string, found array"},
        {"messages", R"({"messages": "hi"})", "key 'messages': expected a list, found string"},
        {"messages", R"({"messages": []})", "key 'messages': the list is empty"},
        {"messages", R"({"messages": ["hi"]})", "rows.jsonl:1: messages[0]: expected an object, found string"},
        {"messages", R"({"messages": [{"role": "user", "content": "q"}, {"from": "gpt", "value": "a"}]})",
         R"(messages[1]: key 'role' is missing; found keys: "from", "value")"},
        {"messages", R"({"messages": [{"role": "alien", "content": "q"}]})",
         R"(messages[0]: unknown role "alien"; expected one of system, developer, user, human, assistant, gpt)"},
        {"messages", "{\"messages\": [{\"role\": \"a\\nb\", \"content\": \"q\"}]}", R"(unknown role "a\nb")"},
        {"messages", R"({"messages": [{"role": "assistant", "content": null, "tool_calls": []}]})",
         "key 'content' is null"},
        {"messages", R"({"messages": [{"role": "user", "content": 3}]})",
         "expected a string or a list of text parts, found number"},
        {"messages", R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
         R"(content[0]: expected a text part {"type": "text", "text": ...}, found {"type":"image_url"})"},
        {"messages", R"({"messages": [{"role": "user", "content": "q", "train": "yes"}]})",
         R"(key 'train': expected true, false, 1 or 0, found "yes")"},
        {"messages", R"({"messages": [{"role": "user", "content": "q", "train": 0.5}]})",
         "key 'train': expected true, false, 1 or 0, found 0.5; weight takes other numbers"},
        {"messages", R"({"messages": [{"role": "user", "content": "q", "weight": -0.1}]})",
         "rows.jsonl:1: messages[0]: key 'weight': expected a weight, 0 or a number from 1e-9 to 1e9, found -0.1; a "
         "loss with a negative weight has no minimum"},
        {"prompt_completion", R"({"prompt": "p"})", "key 'completion' is missing"},
        {"prompt_completion", R"({"prompt": "p", "completion": [{"role": "assistant", "content": "a"}]})",
         "expected two strings or two message lists, found string and array"},
        {"alpaca", R"({"instruction": "i", "output": 5})", "key 'output': expected a string, found number"},
        {"alpaca", R"({"instruction": "i", "output": "o", "history": [["q"]]})",
         R"(history[0]: expected [question, answer], found ["q"])"},
        {"sharegpt", R"({"conversations": [{"from": "bot", "value": "v"}]})",
         R"(conversations[0]: unknown role "bot"; expected one of system, developer, user, human, assistant)"},
        {"tokens", R"({"input_ids": []})", "key 'input_ids': the list is empty"},
        {"tokens", R"({"input_ids": [1, 2.0]})", "input_ids[1]: expected a token id, found 2.0"},
        {"tokens", R"({"input_ids": [1, true]})", "input_ids[1]: expected a token id, found true"},
        {"tokens", R"({"input_ids": [-1]})", "input_ids[0]: expected a token id, found -1"},
        {"tokens", R"({"input_ids": [2147483648]})", "expected a token id, found 2147483648"},
        {"tokens", R"({"input_ids": [1], "labels": [18446744073709551516]})",
         "expected a token id or -100, found 18446744073709551516"},
        {"tokens", R"({"input_ids": [1, 2], "labels": [1]})", "'labels' has 1 entries, 'input_ids' has 2"},
        {"tokens", R"({"input_ids": [1, 2], "labels": [1, -5]})", "labels[1]: expected a token id or -100, found -5"},
        {"tokens", R"({"input_ids": [1, 2], "attention_mask": [1]})",
         "'attention_mask' has 1 entries, 'input_ids' has 2"},
        {"tokens", R"({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]})",
         "attention_mask[2]: expected zeros (padding) at the ends alone, found 1 behind a 0"},
        {"tokens", R"({"input_ids": [1, 2], "attention_mask": [2, 1]})", "attention_mask[0]: expected 0 or 1, found 2"},
        {"tokens", R"({"input_ids": [1, 2], "attention_mask": [0, 0]})", "every entry is padding"},
    };
    for (const auto& [type, json, part] : cases)
        expect_error(Exit::data, part, [&, &json = json, &type = type] { first(json, type); });
    expect_error(Exit::data, "key 'question' (column 'prompt') is missing", [&] {
        first(R"({"prompt": "p", "completion": "c"})", "prompt_completion", {{"prompt", "question"}});
    });
}

}  // namespace
}  // namespace colonnade
