// Rows of token ids: labels and masks decide what is learned, padding goes, packed rows are refused.

#include "tests/support/paths.h"
#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class TokenRows : public RowTest {
  protected:
    static std::string shown(const Row& row) {
        return fmt::format("{} | {}{}{}", fmt::join(row.input_ids, " "), fmt::join(row.labels, " "),
                           row.token_weights.empty() ? "" : " | ", fmt::join(row.token_weights, " "));
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

TEST_F(TokenRows, WeightsSayHowMuchATokenIsLearned) {
    EXPECT_EQ(shown(first_row(R"({"input_ids": [1, 5, 6, 2], "token_weights": [0, 0.5, 2, 1]})")),
              "1 5 6 2 | -100 5 6 2 | 0 0.5 2 1");
    EXPECT_EQ(shown(first_row(R"({"input_ids": [0, 5, 6, 2, 0], "labels": [-100, -100, 6, 2, -100],
                                  "completion_mask": [0, 1, 1, 1, 1], "attention_mask": [0, 1, 1, 1, 0],
                                  "token_weights": [0, 0.0, 0.25, 1, 0]})")),
              "5 6 2 | -100 6 2 | 0 0.25 1");
    EXPECT_EQ(shown(first_row(R"({"input_ids": [5, 6], "w": [1, 0]})", RowKind::texts,
                              {.path = "", .columns = {{"token_weights", "w"}}})),
              "5 6 | 5 -100 | 1 0");
    const struct {
        const char *more, *part;
    } cases[] = {
        {R"("token_weights": [1])", "'token_weights' has 1 entries, 'input_ids' has 2; expected the same number"},
        {R"("token_weights": 1)", "key 'token_weights': expected a list, found number"},
        {R"("token_weights": [1, -0.5])",
         "rows.jsonl:1: token_weights[1]: expected a weight, 0 or a number from 1e-9 to 1e9, found -0.5"},
        {R"("token_weights": [NaN, 1])",
         "token_weights[0]: expected a weight, 0 or a number from 1e-9 to 1e9, found NaN"},
        {R"("token_weights": [1, Infinity])", "token_weights[1]: expected a weight"},
        {R"("token_weights": [1, 1e30])", "token_weights[1]: expected a weight"},
        {R"("token_weights": [1, 1e-30])", "token_weights[1]: expected a weight"},
        {R"("token_weights": [1, true])", "token_weights[1]: expected a weight"},
        {R"("token_weights": [1, null])", "token_weights[1]: expected a weight"},
        {R"("token_weights": [1, 0.5], "labels": [1, -100])",
         "rows.jsonl:1: token_weights[1]: found 0.5, but labels and loss masks leave out the token; expected 0"},
        {R"("token_weights": [0, 1], "loss_mask": [1, 1])",
         "token_weights[0]: found 0, but labels and loss masks select the token; expected a weight above 0"},
    };
    for (const auto& [more, part] : cases) expect_refused(fmt::format(R"({{"input_ids": [1, 2], {}}})", more), part);
    expect_refused(R"({"chosen_input_ids": [1, 2], "rejected_input_ids": [1, 3], "chosen_token_weights": [0, 2]})",
                   "key 'chosen_token_weights': it may say what is learned", RowKind::preferences);
}

TEST_F(TokenRows, WeightsInParquet) {
    RowReader rows({.path = golden_file("parquet/weights.parquet")});
    Row row;
    ASSERT_TRUE(rows.next(row));
    EXPECT_EQ(row.labels, (std::vector<int32_t>{-100, 5, 6, 2}));
    EXPECT_EQ(row.token_weights, (std::vector<float>{0, 0.1f, 2, 1}));
    EXPECT_EQ(row.weight, 0.3f);
    ASSERT_TRUE(rows.next(row));
    EXPECT_TRUE(row.token_weights.empty());
    EXPECT_EQ(row.weight, 1);
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
