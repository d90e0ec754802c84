#include "data/rows/score_keys.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "engine/device/error.h"
#include "engine/io/sha256.h"

namespace colonnade {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
constexpr double most = 1e30;  ///< of a reward or an advantage: sums of several stay in the range of float32

constexpr size_t most_functions = 64;

constexpr const char* rewards[] = {"reward", "rewards"};
constexpr const char* advantages_[] = {"advantage", "advantages"};
constexpr const char* groups[] = {"group", "group_id", "group_index"};
constexpr const char* truncated = "truncated";
/// Keys that name the reason why an answer ended, and the reason that says that it was cut off.
constexpr struct { const char *key, *cut_off; } reasons[] = {{"finish_reason", "length"}, {"status", "truncated"}};

/// A key with one value for the only answer, or with a list of values for several.
struct PerAnswer {
    const Json* value = nullptr;  ///< null if the row has none
    std::string place{};
    bool is_list = false;

    const Json& of(size_t answer) const { return is_list ? (*value)[answer] : *value; }
    std::string place_of(size_t answer) const { return is_list ? fmt::format("{}: [{}]", place, answer) : place; }
};

/// `answers`: of a list; nothing for the only answer of a row.
PerAnswer find_values(const RowFields& row, const char* key, std::optional<size_t> answers) {
    PerAnswer values{.value = key ? row.find(key) : nullptr};
    if (!values.value) return values;
    values.place = row.place(key);
    values.is_list = answers.has_value();
    if (answers && row.list(key).size() != *answers)
        fail(Exit::data, "{}: {} entries for {} answers; expected one for each", values.place, values.value->size(),
             *answers);
    return values;
}

/// NaN for null. A checker may say true or false.
double read_number(const Json& value, const std::string& place) {
    if (value.is_null()) return unknown;
    if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
    const double number = value.is_number() ? value.get<double>() : most * 2;
    if (std::abs(number) > most)
        fail(Exit::data, "{}: expected a number from {} to {}, or null, found {}", place, -most, most, shown(value));
    return number;
}

void require_few(size_t functions, const std::string& place) {
    if (functions < 1 || functions > most_functions)
        fail(Exit::data, "{}: {} reward functions; expected 1 to {}, with a number or null for each", place, functions,
             most_functions);
}

std::shared_ptr<const std::vector<std::string>> names_of(const Json& functions) {
    std::vector<std::string> names;
    for (const auto& item : functions.items()) names.push_back(item.key());
    return std::make_shared<const std::vector<std::string>>(std::move(names));
}

/// The rewards of one answer: of one function, or of several with or without names.
void read_rewards(const Json& value, const std::string& place, AnswerScore& score) {
    if (!value.is_structured()) {
        score.rewards = {read_number(value, place)};
        return;
    }
    require_few(value.size(), place);
    for (const auto& item : value.items())
        score.rewards.push_back(read_number(item.value(), fmt::format("{}: {}", place, shown_key(item.key()))));
    if (value.is_object()) score.functions = names_of(value);
}

/// {"f": [1, 2], "g": [3, 4]}: a list for each function.
void read_reward_lists(const Json& functions, const std::string& place, std::vector<AnswerScore>& scores) {
    require_few(functions.size(), place);
    const auto names = names_of(functions);
    for (AnswerScore& score : scores) score.functions = names;
    for (const auto& [name, values] : functions.items()) {
        const std::string of_function = fmt::format("{}: {}", place, shown_key(name));
        if (!values.is_array() || values.size() != scores.size())
            fail(Exit::data, "{}: expected a list of {} rewards, one for each answer, found {}", of_function,
                 scores.size(), shown(values));
        for (size_t i = 0; i < scores.size(); ++i) scores[i].rewards.push_back(read_number(values[i], of_function));
    }
}

bool read_truncated(const Json& value, const std::string& place) {
    if (value.is_null()) return false;
    if (!value.is_boolean() && value != 0 && value != 1)
        fail(Exit::data, "{}: expected true or false, found {}", place, shown(value));
    return value.is_boolean() ? value.get<bool>() : value == 1;
}

void read_ends(const RowFields& row, std::optional<size_t> answers, std::vector<AnswerScore>& scores) {
    const PerAnswer given = find_values(row, truncated, answers);
    for (size_t i = 0; given.value && i < scores.size(); ++i)
        scores[i].truncated = read_truncated(given.of(i), given.place_of(i));
    for (const auto& [key, cut_off] : reasons) {
        const auto stated = row.object().find(row.name(key));
        const bool fits = stated != row.object().end() && (answers ? stated->is_array() : stated->is_string());
        if (!fits) continue;  // a number of some other meaning
        const PerAnswer values = find_values(row, key, answers);
        for (size_t i = 0; i < scores.size(); ++i) scores[i].truncated |= values.of(i) == cut_off;
    }
}

bool has_any(const RowFields& row, KeyNames names) {
    for (const char* name : names)
        if (row.object().contains(row.name(name))) return true;
    return false;
}

[[noreturn]] void refuse_without_reward(const RowFields& row) {
    fail(Exit::data,
         "{}: no reward and no advantage; found keys: {}; expected 'reward' or 'advantage' ('rewards' or 'advantages' "
         "beside several answers), null for none; columns renames keys",
         row.where(), found_keys(row.object()));
}

std::vector<AnswerScore> read_all(const RowFields& row, std::optional<size_t> answers,
                                  std::optional<double> advantage) {
    std::vector<AnswerScore> scores(answers.value_or(1));
    if (!has_reward(row)) refuse_without_reward(row);
    if (const char* key = find_one(row, rewards)) {
        if (answers && row.at(key).is_object()) {
            read_reward_lists(row.at(key), row.place(key), scores);
        } else {
            const PerAnswer values = find_values(row, key, answers);
            for (size_t i = 0; i < scores.size(); ++i) read_rewards(values.of(i), values.place_of(i), scores[i]);
        }
    }
    if (has_any(row, advantages_)) {
        const char* key = advantage ? nullptr : find_one(row, advantages_);
        const PerAnswer values = find_values(row, key, answers);
        for (size_t i = 0; i < scores.size(); ++i)
            scores[i].advantage =
                values.value ? read_number(values.of(i), values.place_of(i)) : advantage.value_or(unknown);
    }
    read_ends(row, answers, scores);
    return scores;
}

}  // namespace

std::vector<std::string> reward_keys() {
    std::vector<std::string> keys = {truncated};
    for (const KeyNames names : {KeyNames(rewards), KeyNames(advantages_), KeyNames(groups)})
        keys.insert(keys.end(), names.begin(), names.end());
    for (const auto& reason : reasons) keys.emplace_back(reason.key);
    return keys;
}

const char* find_one(const RowFields& row, KeyNames names) {
    const char* found = nullptr;
    for (const char* name : names) {
        if (!row.find(name)) continue;
        if (found) fail(Exit::data, "{}: found beside '{}'; expected one of them", row.place(name), row.name(found));
        found = name;
    }
    return found;
}

bool has_reward(const RowFields& row) {
    return has_any(row, rewards) || has_any(row, advantages_);
}

KeyNames advantage_names() {
    return advantages_;
}

std::vector<AnswerScore> read_scores(const RowFields& row, size_t answers) {
    return read_all(row, answers, std::nullopt);
}

AnswerScore read_score(const RowFields& row, std::optional<double> advantage) {
    return read_all(row, std::nullopt, advantage).front();
}

AnswerScore read_label(const RowFields& row) {
    for (const KeyNames names : {KeyNames(rewards), KeyNames(advantages_)})
        if (const char* key = find_one(row, names))
            fail(Exit::data,
                 "{}: found beside '{}': stage kto learns from labels, stage grpo from rewards and advantages; if it "
                 "does not matter, add ignore_columns: [{}] to the data set",
                 row.place(key), row.name("label"), row.name(key));
    const Json& label = row.at("label");
    if (!label.is_boolean() && label != 0 && label != 1)
        fail(Exit::data, "{}: expected true for a good answer or false for a bad one, found {}", row.place("label"),
             shown(label));
    std::vector<AnswerScore> scores(1);
    scores[0].advantage = (label.is_boolean() ? label.get<bool>() : label == 1) ? 1 : -1;
    read_ends(row, std::nullopt, scores);
    return scores[0];
}

std::optional<GroupKey> read_group(const RowFields& row) {
    const char* key = find_one(row, groups);
    if (!key) return std::nullopt;
    const Json& value = row.at(key);
    if (!value.is_string() && !value.is_number_integer()) row.mistyped(key, "a text or an integer");
    return group_of("key", value.is_string() ? value.get<std::string>() : value.dump());
}

GroupKey group_of(std::string_view form, std::string_view prompt) {
    const std::string hex = sha256(fmt::format("{} {}", form, prompt));
    GroupKey key{};
    for (size_t i = 0; i < key.size(); ++i)
        (void)std::from_chars(hex.data() + 16 * i, hex.data() + 16 * (i + 1), key[i], 16);
    return key;
}

}  // namespace colonnade
