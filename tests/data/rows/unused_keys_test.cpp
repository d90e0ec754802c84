// Keys that no reader uses: harmless, counted, or refused. NaN is refused in the keys that are used alone.

#include "data/rows/unused_keys.h"
#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class UnusedKeys : public RowTest {
  protected:
    std::string unused(const std::string& more) {
        const Row row = first_row(fmt::format(R"({{"prompt": "p", "completion": "c", {}}})", more));
        return fmt::format("{}", fmt::join(row.unused, " "));
    }
};

TEST_F(UnusedKeys, DescriptionsAreHarmlessAndTheRestIsCounted) {
    EXPECT_EQ(
        unused(
            R"("id": 3, "prompt_id": "a", "idx": 1, "source": "web", "score_chosen": 8.5, "dataset": "d", "lang": "en",
                        "metadata": {"x": 1}, "ratings": [1, 2], "num_tokens": 7, "created_at": "2026")"),
        "");
    EXPECT_EQ(unused(R"("context": "long", "notes": 3, "text": "t", "extra": ["x"])"), "context notes text extra");
    EXPECT_EQ(unused(R"("context": null, "notes": "", "extra": [], "more": {})"), "") << "nothing in them";
    EXPECT_EQ(unused(R"("source": ")" + std::string(201, 'x') + "\""), "source") << "prose";
    const std::string name = unused("\"a\\n" + std::string(100, 'x') + "\": 3");
    EXPECT_EQ(name, "a\\n" + std::string(73, 'x') + "...") << "names for a report are one line, and short";
}

TEST_F(UnusedKeys, AreBoundedForHostileRows) {
    // A search for each of the keys would take minutes.
    std::string keys;
    for (int i = 0; i < 200'000; ++i) keys += fmt::format("{}\"k{}\": 0", i ? ", " : "", i);
    EXPECT_EQ(first_row("{\"text\": \"a\", " + keys + "}").unused.size(), 200'000u);
    expect_refused("{\"messages\": [{\"role\": \"user\", \"content\": \"q\", " + keys + "}]}",
                   "rows.jsonl:1: messages[0]: 200002 keys, expected at most 256");
    expect_refused(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}], \"chat_template_kwargs\": {" + keys + "}}",
        "rows.jsonl:1: key 'chat_template_kwargs': 200000 entries, expected at most 256");
}

TEST_F(UnusedKeys, WhatMaySayWhatIsLearnedIsRefused) {
    for (const char* key : {"mask", "label", "labels", "sample_weight", "lossMask_loss", "loss", "target-mask"}) {
        EXPECT_TRUE(may_select_tokens(key)) << key;
        expect_refused(
            fmt::format(R"({{"prompt": "p", "completion": "c", "{}": 1}})", key),
            fmt::format("rows.jsonl:1: key '{0}': it may say what is learned, but rows of this format have no "
                        "such key; if it does not matter, add ignore_columns: [{0}] to the data set",
                        key));
    }
    for (const char* key : {"masked_lm", "labeler", "weighting", "glossary", ""})
        EXPECT_FALSE(may_select_tokens(key)) << key;
    expect_refused(R"({"prompt": "p", "completion": "c", "label": true, "weight": 2})",
                   "key 'weight': it may say what is learned, but rows of this format have no such key",
                   RowKind::labelled);
    expect_refused(R"({"prompt": "p", "completion": "c", "label": false})",
                   "key 'label': it marks answers as good or bad, and only stage kto learns from that");
    expect_refused(R"({"text": "a", "images": ["x.png"]})", "key 'images': Colonnade trains on text only");
    expect_refused(R"({"text": "a", "system": "s"})", "key 'system': plain text has no system turn");
    expect_error(Exit::data, "key 'setting': plain text has no system turn", [&] {
        (void)first_row(R"({"prompt": "p", "completion": "c", "setting": "s"})", RowKind::texts,
                        {.path = "", .type = "prompt_completion", .columns = {{"system", "setting"}}});
    });
    EXPECT_TRUE(first_row(R"({"text": "a", "images": [], "system": ""})").unused.empty());
}

TEST_F(UnusedKeys, IgnoredColumnsAreAsIfTheyWereNotThere) {
    const Row row = first_row(R"({"text": "a", "label": 1, "messages": 3})", RowKind::texts,
                              {.path = "", .ignore_columns = {"label", "messages"}});
    EXPECT_EQ(*row.completion, "a");
    EXPECT_TRUE(row.unused.empty());
}

TEST_F(UnusedKeys, NaNMattersWhereItIsUsed) {
    EXPECT_EQ(unused(R"("score": NaN, "scores": [1, -Infinity, {"x": Infinity}], "note": "NaN \" NaN")"), "note");
    expect_refused(R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": NaN})",
                   "key 'margin': expected a number in the range of float32, found NaN", RowKind::preferences);
    expect_refused(R"({"prompt": "p", "chosen": "c", "rejected": "r", "margin": -Infinity})", "found -Infinity",
                   RowKind::preferences);
    expect_refused(R"({"text": NaN})", "key 'text': expected a string, found number");
    expect_refused(R"({"input_ids": [1, NaN]})", "input_ids[1]: expected a token id, found NaN");
    for (const char* bad : {"{\"text\": \"a\", \"x\": NaN5}", "{\"text\": \"a\", \"x\": 1NaN}",
                            "{\"text\": \"a\", \"x\": nan}", "{\"text\": \"a\", \"x\": Infinit}", "{NaN: 1}"})
        expect_refused(bad, "invalid JSON");
}

}  // namespace
}  // namespace colonnade
