// Rows of token ids: labels and masks decide what is learned, padding goes, packed rows are refused.

#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class TokenRows : public RowTest {
  protected:
    static std::string shown(const Row& row) {
        return fmt::format("{} | {}", fmt::join(row.input_ids, " "), fmt::join(row.labels, " "));
    }
    std::string pair(const std::string& json) {
        const Row row = first_row(json, RowKind::preferences);
        return shown(row.answers[0]) + "\n" + shown(row.answers[1]) + (row.whole_answers ? "\nwhole" : "");
    }
};

TEST_F(TokenRows, AMaskDecidesWhatIsLearned) {
    for (const char* mask : {"completion_mask", "assistant_masks", "assistant_mask", "loss_mask", "response_mask"})
        for (const char* values : {"[0, 0, 1, 1]", "[false, false, true, true]"})
            EXPECT_EQ(shown(first_row(fmt::format(R"({{"input_ids": [1, 5, 6, 2], "{}": {}}})", mask, values))),
                      "1 5 6 2 | -100 -100 6 2")
                << mask;
    EXPECT_EQ(shown(first_row(R"({"input_ids": [1, 5, 6, 2], "labels": [1, -100, 6, 2], "completion_mask": [0, 1, 1, 1],
                                  "assistant_masks": [1, 1, 1, 0]})")),
              "1 5 6 2 | -100 -100 6 -100")
        << "learned is what labels and all masks select";
}

TEST_F(TokenRows, PaddingOnEitherSideGoes) {
    EXPECT_EQ(shown(first_row(R"({"input_ids": [0, 0, 5, 6, 0], "labels": [-100, -100, -100, 6, -100],
                                  "attention_mask": [0, 0, 1, 1, 0], "position_ids": [1, 1, 0, 1, 1],
                                  "token_type_ids": [0, 0, 0, 0, 0], "special_tokens_mask": [1, 1, 0, 0, 1]})")),
              "5 6 | -100 6");
    EXPECT_TRUE(
        first_row(R"({"input_ids": [1], "seq_lengths": [1], "position_ids": [0], "length": 1})").unused.empty());
    EXPECT_EQ(shown(first_row(R"({"input_ids": [5, 6, 0], "seq_lengths": [2], "attention_mask": [1, 1, 0]})")),
              "5 6 | 5 6");
}

TEST_F(TokenRows, RefusesPackedRowsAndMasksThatItDoesNotKnow) {
    const char* way_out = "rows that were packed elsewhere are not supported: write one row for each document";
    expect_refused(
        R"({"input_ids": [1, 5, 6, 2, 1, 7, 8, 2], "seq_lengths": [4, 4], "position_ids": [0, 1, 2, 3, 0, 1, 2, 3]})",
        fmt::format("rows.jsonl:1: key 'seq_lengths': 2 documents; {}", way_out));
    expect_refused(R"({"input_ids": [1, 2, 1, 2], "position_ids": [0, 1, 0, 1]})",
                   fmt::format("rows.jsonl:1: position_ids[2]: expected 2, found 0; {}", way_out));
    const struct {
        const char *json, *part;
    } cases[] = {
        {R"({"input_ids": [1, 2, 3], "seq_lengths": [2]})",
         "key 'seq_lengths': 2 tokens, but 'input_ids' has 3; expected the same number"},
        {R"({"input_ids": [1, 2], "completion_mask": [1]})", "'completion_mask' has 1 entries, 'input_ids' has 2"},
        {R"({"input_ids": [1, 2], "loss_mask": [0, 0.5]})", "loss_mask[1]: expected 0 or 1, found 0.5"},
        {R"({"input_ids": [1, 2], "loss_mask": [0, NaN]})", "loss_mask[1]: expected 0 or 1, found NaN"},
        {R"({"input_ids": [1, 2], "loss_mask": 1})", "key 'loss_mask': expected a list, found number"},
        {R"({"input_ids": [1, 2], "prompt_mask": [1, 0]})",
         "key 'prompt_mask': it may say what is learned, but rows of this format have no such key"},
        {R"({"input_ids": [1, 2], "token_weights": [1, 0.5]})", "key 'token_weights': it may say what is learned"},
        {R"({"input_ids": [1, 2], "attention_mask": [1, 2]})", "attention_mask[1]: expected 0 or 1, found 2"},
    };
    for (const auto& [json, part] : cases) expect_refused(json, part);
}

TEST_F(TokenRows, APromptWithinTheAnswersCountsOnce) {
    EXPECT_EQ(
        pair(R"({"prompt_input_ids": [1, 8, 9], "prompt_attention_mask": [1, 1, 1], "chosen_input_ids": [1, 8, 9, 6, 2],
                       "chosen_attention_mask": [1, 1, 1, 1, 1], "chosen_labels": [-100, -100, -100, 6, 2],
                       "rejected_input_ids": [1, 8, 9, 7, 0], "rejected_attention_mask": [1, 1, 1, 1, 0],
                       "rejected_labels": [-100, -100, -100, 7, -100]})"),
        "1 8 9 6 2 | -100 -100 -100 6 2\n1 8 9 7 | -100 -100 -100 7");
    EXPECT_EQ(pair(R"({"prompt_input_ids": [1, 8], "chosen_input_ids": [1, 8, 6], "rejected_input_ids": [1, 8, 7]})"),
              "1 8 6 | -100 -100 6\n1 8 7 | -100 -100 7");
    EXPECT_EQ(pair(R"({"prompt_ids": [1, 8], "chosen_ids": [6, 2], "rejected_ids": [1, 8, 7]})"),
              "1 8 6 2 | -100 -100 6 2\n1 8 1 8 7 | -100 -100 1 8 7")
        << "one answer that only begins alike is no copy of the prompt";
    EXPECT_EQ(pair(R"({"chosen_input_ids": [1, 6], "rejected_input_ids": [1, 7], "chosen_loss_mask": [0, 1],
                       "rejected_loss_mask": [0, 1]})"),
              "1 6 | -100 6\n1 7 | -100 7");
    expect_refused(R"({"chosen_input_ids": [1, 6], "rejected_input_ids": [1, 7], "chosen_loss_mask": [0, 1]})",
                   "found only one of 'chosen_labels' and 'rejected_labels' (or loss masks)", RowKind::preferences);
}

}  // namespace
}  // namespace colonnade
