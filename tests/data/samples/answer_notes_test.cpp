// Rows without an answer, or without a question, are noted: under fine-tuning as under preferences.

#include "data/samples/answer_notes.h"

#include "data/samples/encode.h"
#include "tests/support/paths.h"
#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class AnswerNotes : public RowTest {
  protected:
    RowNotes notes(const std::string& json) { return answer_notes(first_row(json)); }
};

TEST_F(AnswerNotes, OfTextsAndChats) {
    using enum RowNote;
    const struct {
        const char* json;
        RowNotes expected;
    } cases[] = {
        {R"({"instruction": "Say hi", "output": ""})", {empty_answer}},
        {R"({"instruction": "", "output": "hello"})", {no_prompt}},
        {R"({"instruction": "Say hi", "input": null, "output": "hi"})", {}},
        {R"({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": ""}]})", {empty_answer}},
        {R"({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "  \n "}]})",
         {empty_answer}},
        {R"({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": []}]})", {empty_answer}},
        {R"({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "", "train": false},
             {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]})",
         {}},
        {R"({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": ""},
             {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]})",
         {empty_answer}},
        {R"({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": null,
             "tool_calls": [{"name": "f", "arguments": {}}]}]})",
         {}},
        {R"({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "fine"}]})", {no_prompt}},
        {R"({"messages": [{"role": "user", "content": "only user"}]})", {unanswered}},
        {R"({"messages": [{"role": "assistant", "content": "only assistant"}]})", {no_prompt}},
        {R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
             {"role": "user", "content": "thanks"}]})",
         {unanswered}},
        {R"({"prompt": "Say hi", "completion": "   "})", {empty_answer}},
        {R"({"prompt": "", "completion": "hello"})", {no_prompt}},
        {R"({"prompt": "", "completion": ""})", {empty_answer, no_prompt}},
        {R"({"text": "plain"})", {}},
        {R"({"input_ids": [1, 2]})", {}},
    };
    for (const auto& [json, expected] : cases) EXPECT_EQ(notes(json), expected) << json;
}

TEST_F(AnswerNotes, OfPreferences) {
    using enum RowNote;
    const struct {
        const char* json;
        RowNotes chosen, rejected;
    } cases[] = {
        {R"({"prompt": "q", "chosen": "", "rejected": "r"})", {empty_answer}, {}},
        {R"({"prompt": " ", "chosen": "c", "rejected": "\n"})", {no_prompt}, {no_prompt, empty_answer}},
        {R"({"system": "s", "question": "q", "chosen": "c", "rejected": ""})", {}, {empty_answer}},
        {R"({"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""},
             {"role": "user", "content": "q"}], "chosen": {"role": "assistant", "content": "c"},
             "rejected": [{"role": "assistant", "content": []}]})",
         {},
         {empty_answer}},
    };
    for (const auto& [json, chosen, rejected] : cases) {
        const Row row = first_row(json, RowKind::preferences);
        EXPECT_EQ(answer_notes(row.answers.at(0)), chosen) << json;
        EXPECT_EQ(answer_notes(row.answers.at(1)), rejected) << json;
    }
}

/// The encoder passes them on, and adds what the tokens show.
TEST_F(AnswerNotes, TheEncoderReportsThem) {
    const Encoder encoder(Tokenizer::load(golden_file("template_golden.model")), {});
    const auto encoded = [&](const std::string& json) { return encoder.encode(first_row(json), "here").notes; };
    EXPECT_TRUE(encoded(R"({"instruction": "Say hi", "output": " "})").has(RowNote::empty_answer));
    EXPECT_FALSE(encoded(R"({"instruction": "Say hi", "output": "x"})").any());
    EXPECT_TRUE(encoded(R"({"messages": [{"role": "user", "content": "q"}]})").has(RowNote::dropped_nothing_learned));
    const int32_t eos = *encoder.tokenizer()->eos();
    EXPECT_TRUE(
        encoded(fmt::format(R"({{"input_ids": [5, {0}], "labels": [-100, {0}]}})", eos)).has(RowNote::empty_answer));
    EXPECT_FALSE(encoded(fmt::format(R"({{"input_ids": [5, {}]}})", encoder.tokenizer()->encode("hello").back()))
                     .has(RowNote::empty_answer));
}

}  // namespace
}  // namespace colonnade
