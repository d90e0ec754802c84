// Rows with what a teacher says about tokens: every format and spelling, which entries belong to which tokens, and errors
// that name the place.

#include "data/rows/teacher_keys.h"
#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class TaughtRows : public RowTest {
  protected:
    static std::string shown(const TeacherLists& lists) {
        std::string text;
        for (int64_t token = 0; token < lists.tokens(); ++token) {
            text += token > 0 ? " | " : "";
            for (int64_t i = 0; i < lists.length_of(token); ++i) {
                const auto at = static_cast<size_t>(lists.begins[static_cast<size_t>(token)] + i);
                text += fmt::format("{}{}:{}", i > 0 ? " " : "", lists.ids[at], lists.log_probs[at]);
            }
        }
        return text;
    }
    std::string first(const std::string& json, DatasetSpec spec = {}) {
        const Row row = first_row(json, RowKind::taught, std::move(spec));
        EXPECT_EQ(row.answers.size(), 1u);
        const Row& answer = row.answers.at(0);
        std::string text = type_ + ": " + chat_text(answer);
        if (answer.prompt) text += "<" + *answer.prompt + ">" + *answer.completion;
        if (!answer.input_ids.empty())
            text += fmt::format("{} / {}", fmt::join(answer.input_ids, " "), fmt::join(answer.labels, " "));
        return text + " = " + shown(answer.score->teacher);
    }
    void refused(const std::string& json, const std::string& part) { expect_refused(json, part, RowKind::taught); }
};

TEST_F(TaughtRows, EveryFormOfAList) {
    const std::string tokens = R"({"prompt_ids": [1, 2], "completion_ids": [3, 4], )";
    const std::string expected = "prompt_tokens: 1 2 3 4 / -100 -100 3 4 = 3:-0.5 7:-1.25 | 4:-0.125";
    for (const char* lists :
         {R"("teacher_ids": [[3, 7], [4]], "teacher_log_probs": [[-0.5, -1.25], [-0.125]]})",
          R"("target_token_ids": [[3, 7], [4]], "target_logprobs": [[-0.5, -1.25], [-0.125]]})",
          R"("target_token_ids": [[3, 7], [4]], "logprobs": [[-0.5, -1.25], [-0.125]]})",
          R"("logprobs": [{"3": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}, "7": -1.25}, {"4": -0.125}]})",
          R"("prompt_logprobs": [{"3": -0.5, "7": -1.25}, {"token_id:4": {"logprob": -0.125}}]})",
          R"("logprobs": [[{"token": "token_id:3", "logprob": -0.5}, {"token": "token_id:7", "logprob": -1.25}],
                          [{"token_id": 4, "logprob": -0.125, "token": " x"}]]})",
          R"("logprobs": [{"token": "token_id:3", "logprob": -0.5, "top_logprobs": [
                             {"token": "token_id:3", "logprob": -0.5}, {"token": "token_id:7", "logprob": -1.25}]},
                          {"token": "a", "logprob": -9, "top_logprobs": [{"token": "4", "logprob": -0.125}]}]})"})
        EXPECT_EQ(first(tokens + lists), expected) << lists;
    EXPECT_EQ(
        first(tokens + R"("teacher_ids": [[3, 7, 8], [4]], "teacher_log_probs": [[-0.5, null, -Infinity], [0.0005]]})"),
        "prompt_tokens: 1 2 3 4 / -100 -100 3 4 = 3:-0.5 | 4:0");
}

TEST_F(TaughtRows, EntriesBelongToTokensThatAreLearned) {
    const std::string row = R"({"input_ids": [5, 6, 7, 8, 9], )";
    // For each token, those of the prompt included, or for each learned token.
    EXPECT_EQ(
        first(row +
              R"("labels": [-100, -100, 7, -100, 9], "logprobs": [null, {"6": -1}, {"7": -2}, null, {"9": -3}]})"),
        "tokens: 5 6 7 8 9 / -100 -100 7 -100 9 = 7:-2 | 9:-3");
    EXPECT_EQ(first(row + R"("completion_mask": [0, 0, 1, 0, 1], "logprobs": [{"7": -2}, {"9": -3}]})"),
              "tokens: 5 6 7 8 9 / -100 -100 7 -100 9 = 7:-2 | 9:-3");
    // Nothing predicts the first token.
    EXPECT_EQ(first(row + R"("logprobs": [null, {"6": -1}, {"7": -2}, {"8": -1}, {"9": -3}]})"),
              "tokens: 5 6 7 8 9 / 5 6 7 8 9 = 6:-1 | 7:-2 | 8:-1 | 9:-3");
    // Padding.
    EXPECT_EQ(first(R"({"input_ids": [0, 5, 6, 7, 0], "attention_mask": [0, 1, 1, 1, 0],
                        "logprobs": [null, null, {"6": -1}, {"7": -2}, {"1": -1}]})"),
              "tokens: 5 6 7 / 5 6 7 = 6:-1 | 7:-2");
    EXPECT_EQ(first(R"({"prompt_token_ids": [1], "token_ids": [2, 3], "logprobs": [{"2": -1}, {}]})"),
              "prompt_tokens: 1 2 3 / -100 2 3 = 2:-1 | ");
    EXPECT_EQ(found_columns_, "completion_ids: token_ids, prompt_ids: prompt_token_ids");
    refused(row + R"("labels": [-100, -100, 7, -100, 9], "logprobs": [null, {"6": -1}, {"7": -2}]})",
            "key 'logprobs': 3 entries; expected 5, one for each token of the completion, or 2, one for each learned");
}

TEST_F(TaughtRows, TextsAndChats) {
    EXPECT_EQ(first(R"({"prompt": "p", "completion": "a", "logprobs": [{"1": -1}, {"2": -2}]})"),
              "prompt_completion: <p>a = 1:-1 | 2:-2");
    EXPECT_EQ(first(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                        "llm_logprobs": [[{"token": "token_id:1", "logprob": -1}]]})",
                    {.columns = {{"logprobs", "llm_logprobs"}}}),
              "messages: (user: q) | (assistant: a) = 1:-1");
    refused(
        R"({"messages": [{"role": "user", "content": "q"}], "logprobs": [{"1": -1}]})",
        "1 messages, the last one from role 'user'; expected a prompt and then the answer of the assistant that the "
        "teacher's list is about");
}

TEST_F(TaughtRows, AWeightOfTheRow) {
    const Row row =
        first_row(R"({"prompt": "p", "completion": "a", "logprobs": [{"1": -1}], "weight": 0.5})", RowKind::taught);
    EXPECT_EQ(row.answers.at(0).weight, 0.5f);
}

TEST_F(TaughtRows, ErrorsNameThePlace) {
    const auto with = [](const std::string& lists) {
        return R"({"prompt_ids": [1, 2], "completion_ids": [3, 4], )" + lists + "}";
    };
    refused(with(R"("logprobs": [{"3": -0.5, "x": -1}, {"4": -1}])"),
            "key 'logprobs': list 0: expected the id of a token, found \"x\"; texts of tokens are not unique");
    refused(with(R"("logprobs": [{"3": -0.5}, {"4": 0.5}])"),
            "key 'logprobs': list 1: expected a log-probability, a number up to 0, found 0.5");
    refused(with(R"("logprobs": [{"3": -0.5}, {"4": -0.1, "5": -0.1}])"),
            "list 1: the probabilities add up to 1.80967; expected at most 1: natural logarithms of probabilities");
    refused(with(R"("logprobs": [{"3": -0.5}, 7])"), "list 1: expected a list or an object of tokens with their");
    refused(with(R"("logprobs": [{"3": {"rank": 1}}, {"4": -1}])"), "list 0: 3: expected an object with logprob");
    refused(with(R"("teacher_ids": [[3, 3], [4]], "teacher_log_probs": [[-1, -2], [-1]])"),
            "key 'teacher_log_probs': list 0: token 3 is in the list twice");
    refused(with(R"("teacher_ids": [[3], [4]], "teacher_log_probs": [[-1, -2], [-1]])"),
            "list 0: expected two lists of the same length, token ids and log-probabilities, found [3] and [-1,-2]");
    refused(with(R"("teacher_ids": [[3], [4]], "teacher_log_probs": [[-1], [-1], [-1], [-1]])"),
            "key 'teacher_log_probs': 4 entries, but 'teacher_ids' has 2");
    refused(with(R"("reward": 1)"), "cannot detect the format of this row of texts with lists of a teacher");
    std::string ids = "0", log_probs = "-9";
    for (int i = 1; i < 257; ++i) ids += fmt::format(", {}", i), log_probs += ", -9";
    refused(with(fmt::format(R"("teacher_ids": [[{}], [4]], "teacher_log_probs": [[{}], [-1]])", ids, log_probs)),
            "list 0: 257 tokens; expected at most 256: keep the most probable ones");
}

}  // namespace
}  // namespace colonnade
