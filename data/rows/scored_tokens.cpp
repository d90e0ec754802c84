#include "data/rows/scored_tokens.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "data/rows/teacher_keys.h"
#include "data/rows/token_rows.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr const char* masks[] = {"completion_mask", "loss_mask", "response_mask", "tool_mask"};
constexpr const char* prompt_masks[] = {"prompt_mask", "prompt_attention_mask"};
constexpr const char* logps[] = {"old_per_token_logps", "old_log_probs",       "sampling_per_token_logps",
                                 "rollout_log_probs",   "ref_per_token_logps", "ref_log_prob"};
/// The names of each list of GivenLogps, in its order.
constexpr size_t names_each = 2;

/// The product of all masks that the row has; all 1 without any.
std::vector<bool> read_masks(const RowFields& row, const std::string& ids_key, size_t length) {
    std::vector<bool> all(length, true);
    for (const char* key : masks) {
        if (!row.find(key)) continue;
        const std::vector<bool> mask = read_mask(row, key, ids_key, length);
        for (size_t i = 0; i < length; ++i) all[i] = all[i] && mask[i];
    }
    return all;
}

float read_logp(const Json& value, const std::string& place) {
    if (value.is_null()) return std::numeric_limits<float>::quiet_NaN();
    const double logp = value.is_number() ? value.get<double>() : 1;
    if (logp > logp_rounding || logp < -std::numeric_limits<float>::max())
        fail(Exit::data, "{}: expected a log-probability, a number up to 0, or null, found {}", place, shown(value));
    return static_cast<float>(std::min(logp, 0.0));
}

GivenLogps read_logps(const RowFields& row, const TokenAnswer& answer) {
    GivenLogps given;
    for (size_t i = 0; i < std::size(GivenLogps::all); ++i) {
        const char* key = find_one(row, KeyNames(logps).subspan(i * names_each, names_each));
        if (!key) continue;
        for (const Json* entry : of_learned(row, key, answer))
            (given.*GivenLogps::all[i]).push_back(read_logp(*entry, row.place(key)));
    }
    return given;
}

/// An advantage that is given for every token: all have to be equal. Nothing if it is given as one number.
std::optional<double> read_token_advantages(const RowFields& row, const TokenAnswer& answer) {
    const char* key = find_one(row, advantage_names());
    if (!key || !row.at(key).is_array()) return std::nullopt;
    const std::vector<const Json*> entries = of_learned(row, key, answer);
    for (const Json* entry : entries)
        if (!entry->is_number() || !(std::abs(entry->get<double>()) <= std::numeric_limits<float>::max()) ||
            *entry != *entries[0])
            fail(Exit::data, "{}: expected one number, the same for every learned token, found {} and {}",
                 row.place(key), shown(*entries[0]), shown(*entry));
    return entries.empty() ? 0 : entries[0]->get<double>();
}

AnswerScore read_what(const RowFields& row, const TokenAnswer& answer, ScoredBy by) {
    switch (by) {
        case ScoredBy::label:
            return read_label(row);
        case ScoredBy::teacher:
            return {.teacher = read_teacher(row, [&](const char* key) { return of_learned(row, key, answer); })};
        case ScoredBy::reward:
            break;
    }
    return read_score(row, read_token_advantages(row, answer));
}

Row scored_row(const RowFields& row, const TokenAnswer& answer, ScoredBy by) {
    Row result;
    Row& one = result.answers.emplace_back();
    one.input_ids = answer.prompt;
    one.input_ids.insert(one.input_ids.end(), answer.completion.begin(), answer.completion.end());
    one.labels.assign(answer.prompt.size(), -100);
    for (size_t i = 0; i < answer.completion.size(); ++i)
        one.labels.push_back(answer.is_learned(i) ? answer.completion[i] : -100);
    one.score = read_what(row, answer, by);
    if (by == ScoredBy::teacher) return result;
    one.score->logps = read_logps(row, answer);
    const std::string_view bytes(reinterpret_cast<const char*>(answer.prompt.data()),
                                 answer.prompt.size() * sizeof(answer.prompt[0]));
    const std::optional<GroupKey> group = read_group(row);
    one.score->group = group ? *group : group_of("tokens", bytes);
    return result;
}

/// Where the completion begins: `response_length` tokens before the end.
size_t completion_begin(const RowFields& row, size_t length) {
    const Json& value = row.at("response_length");
    if (!value.is_number_unsigned() || value == 0 || value.get<uint64_t>() > length)
        fail(Exit::data, "{}: expected a number of tokens from 1 to {}, those of '{}', found {}",
             row.place("response_length"), length, row.name("input_ids"), shown(value));
    return length - value.get<size_t>();
}

std::vector<std::string> token_keys() {
    std::vector<std::string> keys(std::begin(masks), std::end(masks));
    keys.insert(keys.end(), std::begin(logps), std::end(logps));
    return keys;
}

}  // namespace

std::vector<const Json*> of_learned(const RowFields& row, const char* key, const TokenAnswer& answer) {
    const Json& list = row.list(key);
    const size_t completion = answer.completion.size(),
                 learned = static_cast<size_t>(std::ranges::count(answer.learned, true)),
                 whole = answer.before + answer.prompt.size() + completion + answer.after;
    if (list.size() != completion && list.size() != learned && list.size() != whole)
        fail(Exit::data,
             "{}: {} entries; expected {}, one for each token of the completion, or {}, one for each learned token",
             row.place(key), list.size(), completion, learned);
    std::vector<const Json*> entries;
    const bool only_learned = list.size() == learned && learned != completion;
    size_t next = list.size() == whole ? answer.before + answer.prompt.size() : 0;
    for (size_t i = 0; i < completion; ++i) {
        if (only_learned && !answer.learned[i]) continue;
        if (answer.is_learned(i)) entries.push_back(&list[next]);
        ++next;
    }
    return entries;
}

std::vector<std::string> prompt_token_keys() {
    std::vector<std::string> keys = token_keys();
    keys.insert(keys.end(), std::begin(prompt_masks), std::end(prompt_masks));
    return keys;
}

std::vector<std::string> scored_token_keys() {
    std::vector<std::string> keys = token_keys();
    keys.emplace_back("response_length");
    return keys;
}

KeyNames logp_names() {
    return logps;
}

Row read_prompt_tokens(const RowFields& row, ScoredBy by) {
    TokenAnswer answer{.prompt = read_ids(row, "prompt_ids"), .completion = read_ids(row, "completion_ids")};
    if (const char* mask = find_one(row, prompt_masks))
        read_padding(row, mask, "prompt_ids", answer.prompt.size()).cut(answer.prompt);
    answer.learned = read_masks(row, "completion_ids", answer.completion.size());
    return scored_row(row, answer, by);
}

Row read_scored_tokens(const RowFields& row) {
    const std::vector<int32_t> ids = read_ids(row, "input_ids");
    std::vector<bool> learned{};
    size_t begin = 0;
    if (row.find("response_length")) {
        begin = completion_begin(row, ids.size());
        learned = read_masks(row, "response_length", ids.size() - begin);
    } else {
        if (std::ranges::none_of(masks, [&](const char* key) { return row.find(key) != nullptr; }))
            fail(Exit::data,
                 "{}: nothing says where the completion of '{}' begins; found keys: {}; expected completion_mask, "
                 "another mask, or response_length",
                 row.where(), row.name("input_ids"), found_keys(row.object()));
        learned = read_masks(row, "input_ids", ids.size());
        begin = static_cast<size_t>(std::ranges::find(learned, true) - learned.begin());
        learned.erase(learned.begin(), learned.begin() + static_cast<std::ptrdiff_t>(begin));
    }
    const auto at = ids.begin() + static_cast<std::ptrdiff_t>(begin);
    return scored_row(row, {.prompt = {ids.begin(), at}, .completion = {at, ids.end()}, .learned = std::move(learned)},
                      ScoredBy::reward);
}

}  // namespace colonnade
