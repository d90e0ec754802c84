// Rows of answers that a model wrote: every format, its score and its group, and errors that name the place.

#include <cmath>

#include "data/rows/score_keys.h"
#include "tests/support/row_test.h"

namespace colonnade {
namespace {

class RolloutRows : public RowTest {
  protected:
    /// The score of an answer: "reward 1 0.5 (a b), advantage -1, cut off, old [-1 -2]".
    static std::string shown(const AnswerScore& score) {
        std::string text;
        const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
        if (!score.rewards.empty()) add(fmt::format("reward {}", fmt::join(score.rewards, " ")));
        if (score.functions) text += fmt::format(" ({})", fmt::join(*score.functions, " "));
        if (score.advantage) add(fmt::format("advantage {}", *score.advantage));
        if (score.truncated) add("cut off");
        const char* names[] = {"old", "sampled", "reference"};
        for (size_t i = 0; i < 3; ++i)
            if (const auto& logps = score.logps.*GivenLogps::all[i]; !logps.empty())
                add(fmt::format("{} [{}]", names[i], fmt::join(logps, " ")));
        return text;
    }
    static std::string shown(const Row& answer) {
        std::string text = chat_text(answer);
        if (answer.prompt) text += "<" + *answer.prompt + ">" + *answer.completion;
        if (!answer.input_ids.empty())
            text += fmt::format("{} / {}", fmt::join(answer.input_ids, " "), fmt::join(answer.labels, " "));
        return text + " = " + shown(*answer.score);
    }
    std::string first(const std::string& json, RowKind kind = RowKind::scored, DatasetSpec spec = {}) {
        const Row row = first_row(json, kind, std::move(spec));
        std::string text = type_ + ":";
        for (const Row& answer : row.answers) text += "\n" + shown(answer);
        return text;
    }
    GroupKey group(const std::string& json, RowKind kind = RowKind::scored) {
        return first_row(json, kind).answers.at(0).score->group;
    }
    void refused(const std::string& json, const std::string& part, RowKind kind = RowKind::scored) {
        expect_refused(json, part, kind);
    }
};

TEST_F(RolloutRows, AGroupOrOneAnswerInARow) {
    EXPECT_EQ(first(R"({"prompt": "p", "completions": ["a", "b", "c"], "rewards": [1, 0.5, null]})"),
              "rollouts:\n<p>a = reward 1\n<p>b = reward 0.5\n<p>c = reward nan");
    EXPECT_EQ(first(R"({"prompt": "p", "completion": "a", "reward": true})"), "prompt_completion:\n<p>a = reward 1");
    EXPECT_EQ(first(R"({"prompt": "p", "completion": "a", "reward": null})"), "prompt_completion:\n<p>a = ");
    EXPECT_EQ(first(R"({"prompt": "p", "response": "a", "reward": NaN, "truncated": true})"),
              "prompt_completion:\n<p>a = reward nan, cut off");
    EXPECT_EQ(first(R"({"prompt": [{"role": "user", "content": "q"}], "completions": [
                        [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "t"},
                         {"role": "assistant", "content": "b"}], {"role": "assistant", "content": "c"}],
                        "rewards": [1, 2], "system": "s", "finish_reason": ["stop", "length"]})"),
              "rollouts:\n(system: s) (user: q) | (assistant: a) (tool: t) (assistant: b) = reward 1\n"
              "(system: s) (user: q) | (assistant: c) = reward 2, cut off");
    EXPECT_EQ(first(R"({"prompt": [{"role": "user", "content": "q"}], "completion": "a", "advantage": -0.25})"),
              "prompt_completion:\n(user: q) | (assistant: a) = advantage -0.25");
    EXPECT_EQ(first(R"({"prompt": "p", "completions": ["a", "b"], "advantages": [0.5, null], "rewards": [1, 2]})"),
              "rollouts:\n<p>a = reward 1, advantage 0.5\n<p>b = reward 2, advantage nan");
    // verl's rollouts
    EXPECT_EQ(first(R"({"input": "user\nq\nassistant\n", "output": "a", "score": 0.5, "step": 3})"),
              "prompt_completion:\n<user\nq\nassistant\n>a = reward 0.5");
    EXPECT_EQ(found_columns_, "completion: output, prompt: input, reward: score");
}

TEST_F(RolloutRows, RewardsOfSeveralFunctions) {
    EXPECT_EQ(first(R"({"prompt": "p", "completions": ["a", "b"], "rewards": [[1, null], [0, 2]]})"),
              "rollouts:\n<p>a = reward 1 nan\n<p>b = reward 0 2");
    const char* named = "rollouts:\n<p>a = reward 1 0.5 (right form)\n<p>b = reward 0 nan (right form)";
    EXPECT_EQ(first(R"({"prompt": "p", "completions": ["a", "b"],
                        "rewards": [{"right": 1, "form": 0.5}, {"right": 0, "form": null}]})"),
              named);
    EXPECT_EQ(first(R"({"prompt": "p", "completions": ["a", "b"],
                        "rewards": {"right": [true, false], "form": [0.5, null]}})"),
              named);
    EXPECT_EQ(first(R"({"prompt": "p", "completion": "a", "rewards": [1, 0.5]})"),
              "prompt_completion:\n<p>a = reward 1 0.5");
}

TEST_F(RolloutRows, TokensWithWhatTheSamplerKnewOfThem) {
    // TRL's tensors
    EXPECT_EQ(first(R"({"prompt_ids": [1, 2], "completion_ids": [3, 4, 5], "completion_mask": [1, 0, 1], "reward": 1,
                        "old_per_token_logps": [-1, -2, -3], "sampling_per_token_logps": [-0.5, -1.5],
                        "ref_per_token_logps": [0.0005, null, NaN]})"),
              "prompt_tokens:\n1 2 3 4 5 / -100 -100 3 -100 5 = reward 1, old [-1 -3], sampled [-0.5 -1.5], "
              "reference [0 nan]");
    EXPECT_EQ(first(R"({"prompt_input_ids": [0, 0, 1, 2], "prompt_mask": [0, 0, 1, 1],
                        "completion_input_ids": [3, 4], "tool_mask": [true, false], "advantages": [0.5, 7]})"),
              "prompt_tokens:\n1 2 3 4 / -100 -100 3 -100 = advantage 0.5");
    // TRL's asynchronous trainer: a zero for every token of the prompt
    EXPECT_EQ(first(R"({"input_ids": [1, 2, 3, 4, 5, 6], "completion_mask": [0, 0, 1, 1, 0, 1], "advantage": -2,
                        "old_log_probs": [0, 0, -1, -2, 0, -3], "group_id": 4})"),
              "tokens:\n1 2 3 4 5 6 / -100 -100 3 4 -100 6 = advantage -2, old [-1 -2 -3]");
    // slime
    EXPECT_EQ(first(R"({"tokens": [1, 2, 3, 4], "response_length": 3, "loss_mask": [0, 1, 1],
                        "rollout_log_probs": [0, -1, -2], "reward": 1, "group_index": 0, "status": "truncated"})"),
              "tokens:\n1 2 3 4 / -100 -100 3 4 = reward 1, cut off, sampled [-1 -2]");
    // Nothing predicts a first token; a mask may leave out everything.
    EXPECT_EQ(first(R"({"input_ids": [1, 2, 3], "completion_mask": [1, 1, 1], "reward": 1,
                        "old_log_probs": [-1, -2, -3]})"),
              "tokens:\n1 2 3 / -100 2 3 = reward 1, old [-2 -3]");
    EXPECT_EQ(first(R"({"input_ids": [1, 2, 3], "completion_mask": [0, 0, 0], "reward": 1,
                        "old_log_probs": [0, 0, 0]})"),
              "tokens:\n1 2 3 / -100 -100 -100 = reward 1");
}

TEST_F(RolloutRows, LabelledAnswers) {
    const auto labelled = [&](const std::string& json) { return first(json, RowKind::labelled); };
    EXPECT_EQ(labelled(R"({"prompt": "p", "completion": "a", "label": true})"),
              "prompt_completion:\n<p>a = advantage 1");
    EXPECT_EQ(labelled(R"({"prompt": [{"role": "user", "content": "q"}],
                           "completion": [{"role": "assistant", "content": "a"}], "label": false})"),
              "prompt_completion:\n(user: q) | (assistant: a) = advantage -1");
    // LLaMA-Factory
    EXPECT_EQ(labelled(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
                           {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}], "label": 0})"),
              "messages:\n(user: q) (assistant: a) (user: r) | (assistant: b) = advantage -1");
    EXPECT_EQ(labelled(R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
                           "kto_tag": true, "system": "s"})"),
              "sharegpt:\n(system: s) (user: q) | (assistant: a) = advantage 1");
    EXPECT_EQ(labelled(R"({"instruction": "i", "input": "x", "output": "a", "kto_tag": false})"),
              "alpaca:\n(user: i\nx) | (assistant: a) = advantage -1");
    EXPECT_EQ(labelled(R"({"prompt_ids": [1], "completion_ids": [2, 3], "label": true})"),
              "prompt_tokens:\n1 2 3 / -100 2 3 = advantage 1");
}

TEST_F(RolloutRows, EqualPromptsOrEqualKeysAreAGroup) {
    const auto text = [](const std::string& prompt, const std::string& more = "") {
        return R"({"completion": "a", "reward": 1, "prompt": )" + prompt + more + "}";
    };
    const std::string chat = R"([{"role": "user", "content": "p"}])";
    EXPECT_EQ(group(text(R"("p")")), group(text(R"("p")", R"(, "truncated": true)")));
    EXPECT_NE(group(text(R"("p")")), group(text(R"("q")")));
    EXPECT_NE(group(text(R"("p")")), group(text(chat))) << "text and a chat are different prompts";
    EXPECT_EQ(group(text(chat)), group(R"({"completions": ["a", "b"], "rewards": [1, 2], "prompt": )" + chat + "}"));
    EXPECT_NE(group(text(chat)), group(text(chat, R"(, "system": "s")")));
    EXPECT_NE(group(text(chat)), group(text(chat, R"(, "tools": [{"name": "f"}])")));
    EXPECT_EQ(group(text(R"("p")", R"(, "group": 7)")), group(text(R"("q")", R"(, "group_id": "7")")));
    EXPECT_NE(group(text(R"("p")", R"(, "group": 7)")), group(text(R"("p")", R"(, "group": 8)")));
    EXPECT_EQ(group(R"({"prompt_ids": [1, 2], "completion_ids": [3], "reward": 1})"),
              group(R"({"input_ids": [1, 2, 4, 5], "completion_mask": [0, 0, 1, 1], "reward": 1})"));
    EXPECT_NE(group(R"({"prompt_ids": [1, 2], "completion_ids": [3], "reward": 1})"),
              group(R"({"prompt_ids": [1], "completion_ids": [2, 3], "reward": 1})"));
}

TEST_F(RolloutRows, ListsThatDoNotFitAreRefused) {
    refused(R"({"prompt": "p", "completions": ["a", "b"], "rewards": [1]})",
            "rows.jsonl:1: key 'rewards': 1 entries for 2 answers; expected one for each");
    refused(R"({"prompt": "p", "completions": ["a", "b"], "rewards": 1})", "key 'rewards': expected a list");
    refused(R"({"prompt": "p", "completions": ["a", "b"], "rewards": {"f": [1, 2, 3]}})",
            "key 'rewards': f: expected a list of 2 rewards, one for each answer, found [1,2,3]");
    refused(R"({"prompt": "p", "completion": "a", "reward": {}})",
            "key 'reward': 0 reward functions; expected 1 to 64, with a number or null for each");
    std::string many = "0";
    for (int i = 0; i < 64; ++i) many += ", 0";
    refused(R"({"prompt": "p", "completion": "a", "reward": [)" + many + "]}", "key 'reward': 65 reward functions");
    refused(R"({"prompt": ")" + std::string(2 << 20, 'p') + R"(", "rewards": [)" + many + R"(], "completions": [)" +
                many + "]}",
            "65 answers, each behind a prompt of 2097154 bytes, are more than 128 MiB of text");
    refused(R"({"prompt": "p", "completions": [], "rewards": []})", "key 'completions': the list is empty");
    refused(R"({"prompt": "p", "completions": ["a", {"role": "assistant", "content": "b"}], "rewards": [1, 2]})",
            "expected every answer of a row in the same form");
    refused(R"({"prompt": "p", "completion": "a", "reward": "good"})",
            R"(key 'reward': expected a number from -1e+30 to 1e+30, or null, found "good")");
    refused(R"({"prompt": "p", "completion": "a", "reward": Infinity})", "or null, found Infinity");
    refused(R"({"prompt": "p", "completion": "a", "reward": 1, "rewards": 2})",
            "key 'rewards': found beside 'reward'; expected one of them");
    refused(R"({"prompt": "p", "completion": "a", "reward": 1, "group": [1]})",
            "key 'group': expected a text or an integer, found array");
    refused(R"({"prompt": "p", "completion": "a", "reward": 1, "truncated": "no"})",
            R"(key 'truncated': expected true or false, found "no")");
    refused(
        R"({"prompt_ids": [1], "completion_ids": [2, 3, 4], "completion_mask": [1, 1, 0], "reward": 1,
                "old_per_token_logps": [-1, -1, -1, -1, -1]})",
        "key 'old_per_token_logps': 5 entries; expected 3, one for each token of the completion, or 2, one for each "
        "learned token");
    refused(R"({"prompt_ids": [1], "completion_ids": [2], "reward": 1, "ref_per_token_logps": [0.01]})",
            "key 'ref_per_token_logps': expected a log-probability, a number up to 0, or null, found 0.01");
    refused(R"({"prompt_ids": [1], "completion_ids": [2], "reward": 1, "ref_log_prob": [-Infinity]})",
            "found -Infinity");
    refused(R"({"prompt_ids": [1], "completion_ids": [2], "reward": 1, "old_log_probs": [-1],
                "old_per_token_logps": [-1]})",
            "key 'old_log_probs': found beside 'old_per_token_logps'");
    refused(R"({"prompt_ids": [1], "completion_ids": [2, 3], "advantages": [1, 2]})",
            "key 'advantages': expected one number, the same for every learned token, found 1 and 2");
    refused(R"({"prompt_ids": [1], "completion_ids": [2, -3], "reward": 1})", "completion_ids[1]: expected a token id");
    refused(R"({"input_ids": [1, 2], "reward": 1})", "nothing says where the completion of 'input_ids' begins");
    refused(R"({"input_ids": [1, 2], "response_length": 3, "reward": 1})",
            "key 'response_length': expected a number of tokens from 1 to 2, those of 'input_ids', found 3");
}

TEST_F(RolloutRows, WhatBelongsElsewhereIsRefused) {
    refused(R"({"prompt": "p", "completion": "a"})",
            "cannot detect the format of this row of scored answers; found keys: \"prompt\", \"completion\"");
    refused(R"({"prompt": "p", "completion": "a", "label": true})", "rows with a label need stage kto");
    refused(R"({"prompt": "p", "completion": "a", "label": true, "reward": 1})",
            "key 'label': it marks answers as good or bad, and only stage kto learns from that");
    refused(R"({"prompt": "p", "completion": "a", "label": true, "reward": 1})",
            "key 'reward': found beside 'label': stage kto learns from labels, stage grpo from rewards",
            RowKind::labelled);
    refused(R"({"prompt": "p", "completion": "a", "label": 0.5})",
            "key 'label': expected true for a good answer or false for a bad one, found 0.5", RowKind::labelled);
    refused(R"({"prompt": "p", "completions": ["a"], "rewards": [1]})",
            "rows with rewards or advantages need stage grpo", RowKind::labelled);
    refused(R"({"prompt": "p", "completion": "a", "reward": 1, "weight": 2})", "key 'weight'");
    refused(R"({"prompt": "p", "completion": "a", "reward": 1, "old_per_token_logps": [-1]})",
            "key 'old_per_token_logps': log-probabilities belong to tokens, and text is tokenised anew");
    refused(R"({"prompt": [{"role": "user", "content": "q", "weight": 1}], "completion": "a", "reward": 1})",
            "message 0, of the prompt, has weight 1; expected 0: a prompt is not learned");
    refused(R"({"prompt": "p", "completion": {"role": "assistant", "content": "q", "weight": 2}, "reward": 1})",
            "message 1, of the answer, has weight 2; expected 0 or 1");
    refused(R"({"messages": [{"role": "user", "content": "q"}], "label": true})",
            "1 messages, the last one from role 'user'; expected a prompt and then the answer", RowKind::labelled);
    expect_error(Exit::data, "no reward and no advantage; found keys: \"prompt\", \"completion\"; expected 'reward'",
                 [&] {
                     (void)first_row(R"({"prompt": "p", "completion": "a"})", RowKind::scored,
                                     {.path = {}, .type = "prompt_completion"});
                 });
    expect_error(Exit::config, "unknown type 'ranked'; expected a type of scored answers: auto, prompt_tokens",
                 [&] { (void)first_row(R"({"prompt": "p"})", RowKind::scored, {.path = {}, .type = "ranked"}); });
}

}  // namespace
}  // namespace colonnade
