// Formats of answers of which a row says more than their text: scored (stage grpo), labelled (stage kto) and taught
// (stage distill). Each becomes a Row whose answers are rows of their own (data/rows/row_answers.h), each with its score.

#include "data/rows/row_answers.h"
#include "data/rows/row_formats.h"
#include "data/rows/score_keys.h"
#include "data/rows/scored_tokens.h"
#include "data/rows/teacher_keys.h"
#include "data/rows/template_variables.h"
#include "data/rows/token_rows.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

/// Of an answer in text: what stands before it.
GroupKey group_of_prompt(const Row& answer) {
    if (answer.messages.empty()) return group_of("text", *answer.prompt);
    Json prompt = Json::array();
    for (int64_t i = 0; i < answer.prompt_messages; ++i) {
        const Message& message = answer.messages[static_cast<size_t>(i)];
        prompt.push_back({message.role, message.content, message.more});
    }
    prompt.push_back(answer.variables);
    return group_of("messages", prompt.dump());
}

/// Of a message of an answer: whether it is learned, and no more. Prompts are not learned.
void require_answer_switches(const RowFields& row, const Row& answer) {
    for (size_t i = 0; i < answer.messages.size(); ++i) {
        const bool of_prompt = static_cast<int64_t>(i) < answer.prompt_messages;
        const float weight = answer.messages[i].weight.value_or(0);
        if (of_prompt ? weight != 0 : weight != 0 && weight != 1)
            fail(Exit::data, "{}: message {}, of the {}, has weight {}; expected {}", row.where(), i,
                 of_prompt ? "prompt" : "answer", weight,
                 of_prompt ? "0: a prompt is not learned" : "0 or 1: the reward or label says how much is learned");
    }
}

/// Puts what stands beside the answers in its place.
Row with_scores(const RowFields& row, Row result, std::vector<AnswerScore> scores, MessageStyle style) {
    if (const char* key = find_one(row, logp_names()))
        fail(Exit::data,
             "{}: log-probabilities belong to tokens, and text is tokenised anew; expected token ids beside them "
             "(prompt_ids and completion_ids, or input_ids), or no such key",
             row.place(key));
    const Json variables = result.answers[0].messages.empty() ? Json() : read_variables(row, style);
    const std::optional<GroupKey> group = read_group(row);
    for (size_t i = 0; i < scores.size(); ++i) {
        Row& answer = result.answers[i];
        answer.variables = variables;
        require_answer_switches(row, answer);
        answer.score = std::move(scores[i]);
        answer.score->group = group ? *group : group_of_prompt(answer);
    }
    return result;
}

/// Each answer gets a copy of the prompt.
void require_room(const RowFields& row, size_t answers) {
    constexpr size_t most = size_t{128} << 20;
    const size_t prompt = row.at("prompt").dump().size();
    if (answers * prompt > most)
        fail(Exit::data,
             "{}: {} answers, each behind a prompt of {} bytes, are more than {} MiB of text; expected fewer in a row: "
             "rows with equal prompts are one group",
             row.where(), answers, prompt, most >> 20);
}

Row read_rollouts(const RowFields& row) {
    require_room(row, row.filled_list("completions").size());
    const std::vector<RowAnswer> answers = read_answers(row, "completions");
    return with_scores(row, after_prompt(row, answers), read_scores(row, answers.size()), MessageStyle::chat);
}

Row one_answer(const RowFields& row, AnswerScore score) {
    return with_scores(row, after_prompt(row, {read_answer(row, "completion", MessageStyle::chat)}), {std::move(score)},
                       MessageStyle::chat);
}

Row read_rollout(const RowFields& row) {
    return one_answer(row, read_score(row));
}

Row read_labelled(const RowFields& row) {
    return one_answer(row, read_label(row));
}

/// A chat whose last message is the answer.
Row answered_chat(const RowFields& row, std::vector<Message> messages, MessageStyle style, AnswerScore score) {
    if (messages.size() < 2 || messages.back().role != "assistant")
        fail(
            Exit::data,
            "{}: {} messages, the last one from role '{}'; expected a prompt and then the answer of the assistant that "
            "{} is about",
            row.where(), messages.size(), messages.back().role,
            score.teacher.empty() ? fmt::format("'{}'", row.name("label")) : "the teacher's list");
    const std::vector<Message> answer = {std::move(messages.back())};
    messages.pop_back();
    Row result;
    result.answers.push_back(chat_row(messages, answer));
    return with_scores(row, std::move(result), {std::move(score)}, style);
}

Row read_labelled_messages(const RowFields& row) {
    return answered_chat(row, read_chat_messages(row, "messages", MessageStyle::chat), MessageStyle::chat,
                         read_label(row));
}

Row read_labelled_sharegpt(const RowFields& row) {
    return answered_chat(row, read_chat_messages(row, "conversations", MessageStyle::sharegpt), MessageStyle::sharegpt,
                         read_label(row));
}

Row read_labelled_alpaca(const RowFields& row) {
    std::vector<Message> messages = read_alpaca_prompt(row);
    messages.push_back({"assistant", row.text("output")});
    return answered_chat(row, std::move(messages), MessageStyle::chat, read_label(row));
}

Row scored_prompt_tokens(const RowFields& row) {
    return read_prompt_tokens(row, ScoredBy::reward);
}

Row labelled_prompt_tokens(const RowFields& row) {
    return read_prompt_tokens(row, ScoredBy::label);
}

/// Of an answer in text: its tokens are known when it is tokenised.
AnswerScore taught_text(const RowFields& row) {
    return {.teacher = read_teacher(row, [&](const char* key) {
                std::vector<const Json*> entries;
                for (const Json& entry : row.filled_list(key)) entries.push_back(&entry);
                return entries;
            })};
}

Row read_taught_messages(const RowFields& row) {
    return answered_chat(row, read_chat_messages(row, "messages", MessageStyle::chat), MessageStyle::chat,
                         taught_text(row));
}

Row read_taught(const RowFields& row) {
    return one_answer(row, taught_text(row));
}

Row taught_prompt_tokens(const RowFields& row) {
    return read_prompt_tokens(row, ScoredBy::teacher);
}

Row read_taught_tokens(const RowFields& row) {
    const size_t length = read_ids(row, "input_ids").size();
    const KeptTokens kept =
        row.find("attention_mask") ? read_padding(row, "attention_mask", "input_ids", length) : KeptTokens{0, length};
    Row result, tokens = read_tokens(row);
    TokenAnswer answer{.completion = tokens.input_ids, .before = kept.begin, .after = length - kept.end};
    for (const int32_t label : tokens.labels) answer.learned.push_back(label != -100);
    tokens.score =
        AnswerScore{.teacher = read_teacher(row, [&](const char* key) { return of_learned(row, key, answer); })};
    result.answers.push_back(std::move(tokens));
    return result;
}

std::vector<std::string> with(std::vector<std::string> keys, const std::vector<std::string>& more) {
    keys.insert(keys.end(), more.begin(), more.end());
    return keys;
}

}  // namespace

const std::vector<RowFormat>& scored_formats() {
    const std::vector<std::string> of_messages = {"system", "role", "content", "train", "weight"};
    static const std::vector<RowFormat> formats = {
        {"prompt_tokens",
         {"prompt_ids", "completion_ids"},
         with(prompt_token_keys(), reward_keys()),
         scored_prompt_tokens},
        {"tokens", {"input_ids"}, with(scored_token_keys(), reward_keys()), read_scored_tokens},
        {"rollouts", {"prompt", "completions"}, with(of_messages, reward_keys()), read_rollouts},
        {"prompt_completion", {"prompt", "completion"}, with(of_messages, reward_keys()), read_rollout},
    };
    return formats;
}

const std::vector<RowFormat>& labelled_formats() {
    static const std::vector<RowFormat> formats = {
        {"prompt_tokens", {"prompt_ids", "completion_ids", "label"}, prompt_token_keys(), labelled_prompt_tokens},
        {"messages", {"messages", "label"}, {"system", "role", "content", "train", "weight"}, read_labelled_messages},
        {"sharegpt",
         {"conversations", "label"},
         {"system", "from", "value", "train", "weight"},
         read_labelled_sharegpt},
        {"alpaca", {"instruction", "output", "label"}, {"input", "context", "system", "history"}, read_labelled_alpaca},
        {"prompt_completion",
         {"prompt", "completion", "label"},
         {"system", "role", "content", "train", "weight"},
         read_labelled},
    };
    return formats;
}

const std::vector<RowFormat>& taught_formats() {
    const auto with_teacher = [](std::vector<std::string> keys) {
        keys.emplace_back("weight");
        return with(std::move(keys), teacher_keys());
    };
    const std::vector<std::string> of_messages = {"system", "role", "content", "train"};
    static const std::vector<RowFormat> formats = {
        {"prompt_tokens", {"prompt_ids", "completion_ids"}, with_teacher(prompt_token_keys()), taught_prompt_tokens},
        {"tokens", {"input_ids"}, with_teacher(text_token_keys()), read_taught_tokens},
        {"messages", {"messages"}, with_teacher(of_messages), read_taught_messages},
        {"prompt_completion", {"prompt", "completion"}, with_teacher(of_messages), read_taught},
    };
    return formats;
}

}  // namespace colonnade
