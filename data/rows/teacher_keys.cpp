#include "data/rows/teacher_keys.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "data/rows/scored_tokens.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr const char* id_names[] = {"teacher_ids", "target_token_ids"};
constexpr const char* log_prob_names[] = {"teacher_log_probs", "target_logprobs", "logprobs"};
constexpr const char* entry_names[] = {"logprobs", "prompt_logprobs"};
constexpr std::string_view id_mark = "token_id:";

/// One token's list while it is read.
class ListReader {
  public:
    ListReader(TeacherLists& lists, std::string place) : lists_(lists), place_(std::move(place)) {}

    /// Nothing for a log-probability that leaves its token out.
    void add(int32_t id, const Json& value) {
        const std::optional<double> log_prob = log_prob_of(value);
        if (!log_prob) return;
        sum_ += std::exp(*log_prob);
        lists_.add(id, static_cast<float>(*log_prob));
    }
    void end() {
        ids_.assign(lists_.ids.begin() + begin_, lists_.ids.end());
        std::ranges::sort(ids_);
        if (const auto twice = std::ranges::adjacent_find(ids_); twice != ids_.end())
            fail(Exit::data, "{}: token {} is in the list twice", place_, *twice);
        if (std::ssize(ids_) > TeacherLists::longest)
            fail(Exit::data, "{}: {} tokens; expected at most {}: keep the most probable ones", place_, ids_.size(),
                 TeacherLists::longest);
        if (sum_ > 1 + logp_rounding)
            fail(Exit::data,
                 "{}: the probabilities add up to {:.6g}; expected at most 1: natural logarithms of "
                 "probabilities, not logits",
                 place_, sum_);
        lists_.end_list();
    }
    int32_t id_of(const Json& value) const {
        if (value.is_number_unsigned() && value.get<uint64_t>() <= greatest) return value.get<int32_t>();
        if (value.is_string()) return id_of(value.get_ref<const std::string&>());
        refuse_id(shown(value));
    }
    /// "7" or "token_id:7".
    int32_t id_of(const std::string& text) const {
        std::string_view digits = text;
        if (digits.starts_with(id_mark)) digits.remove_prefix(id_mark.size());
        int32_t id = -1;
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), id);
        if (error != std::errc() || end != digits.data() + digits.size() || id < 0) refuse_id(shown(text));
        return id;
    }
    const std::string& place() const { return place_; }

  private:
    static constexpr auto greatest = std::numeric_limits<int32_t>::max();

    std::optional<double> log_prob_of(const Json& value) const {
        if (value.is_null()) return std::nullopt;
        const double log_prob = value.is_number() ? value.get<double>() : 1;
        if (std::isnan(log_prob) || log_prob > logp_rounding)
            fail(Exit::data, "{}: expected a log-probability, a number up to 0, found {}", place_, shown(value));
        if (log_prob < -std::numeric_limits<float>::max()) return std::nullopt;
        return std::min(log_prob, 0.0);
    }
    [[noreturn]] void refuse_id(const std::string& found) const {
        fail(Exit::data,
             "{}: expected the id of a token, found {}; texts of tokens are not unique: let the teacher return token "
             "ids",
             place_, found);
    }

    TeacherLists& lists_;
    std::string place_;
    std::ptrdiff_t begin_ = std::ssize(lists_.ids);
    std::vector<int32_t> ids_;
    double sum_ = 0;
};

/// {"token": id, "logprob": x}
void add_object(const Json& entry, ListReader& list) {
    const Json* id = nullptr;
    for (const char* name : {"token_id", "id", "token"})
        if (const auto found = entry.find(name); !id && found != entry.end() && !found->is_null()) id = &*found;
    const auto log_prob = entry.find("logprob");
    if (!id || log_prob == entry.end())
        fail(Exit::data, "{}: expected an object with token_id or token, and logprob, found {}", list.place(),
             shown(entry));
    list.add(list.id_of(*id), *log_prob);
}

void read_entry(const Json& entry, ListReader& list) {
    if (entry.is_null()) return;
    const Json* entries = &entry;
    if (entry.is_object())
        if (const auto top = entry.find("top_logprobs"); top != entry.end()) entries = &*top;
    if (entries->is_array()) {
        for (const Json& one : *entries) {
            if (!one.is_object())
                fail(Exit::data, "{}: expected objects with token_id or token, and logprob, found {}", list.place(),
                     shown(one));
            add_object(one, list);
        }
    } else if (entries->is_object()) {
        for (const auto& [id, value] : entries->items()) {
            const auto inner = value.is_object() ? value.find("logprob") : value.end();
            if (value.is_object() && inner == value.end())
                fail(Exit::data, "{}: {}: expected an object with logprob, found {}", list.place(), shown_key(id),
                     shown(value));
            list.add(list.id_of(id), value.is_object() ? *inner : value);
        }
    } else {
        fail(Exit::data, "{}: expected a list or an object of tokens with their log-probabilities, found {}",
             list.place(), shown(entry));
    }
}

void read_pair(const Json& ids, const Json& log_probs, ListReader& list) {
    if (ids.is_null() || log_probs.is_null()) return;
    if (!ids.is_array() || !log_probs.is_array() || ids.size() != log_probs.size())
        fail(Exit::data, "{}: expected two lists of the same length, token ids and log-probabilities, found {} and {}",
             list.place(), shown(ids), shown(log_probs));
    for (size_t i = 0; i < ids.size(); ++i)
        if (ids[i] != -1) list.add(list.id_of(ids[i]), log_probs[i]);  // -1 fills lists up to a common length
}

}  // namespace

std::vector<std::string> teacher_keys() {
    std::vector<std::string> keys(std::begin(id_names), std::end(id_names));
    keys.insert(keys.end(), std::begin(log_prob_names), std::end(log_prob_names));
    keys.emplace_back("prompt_logprobs");
    return keys;
}

bool has_teacher(const RowFields& row) {
    const auto has = [&](KeyNames names) {
        return std::ranges::any_of(names, [&](const char* name) { return row.find(name) != nullptr; });
    };
    return has(id_names) ? has(log_prob_names) : has(entry_names);
}

TeacherLists read_teacher(const RowFields& row, const ChooseEntries& choose) {
    TeacherLists lists;
    const auto place = [&](const char* key, size_t i) { return fmt::format("{}: list {}", row.place(key), i); };
    if (const char* id_key = find_one(row, id_names)) {
        const char* const key = find_one(row, log_prob_names);
        if (!key)
            fail(Exit::data, "{}: no log-probabilities beside it; found keys: {}; expected teacher_log_probs",
                 row.place(id_key), found_keys(row.object()));
        const std::vector<const Json*> ids = choose(id_key), log_probs = choose(key);
        if (row.list(id_key).size() != row.list(key).size())
            fail(Exit::data, "{}: {} entries, but '{}' has {}; expected one for each", row.place(key),
                 row.list(key).size(), row.name(id_key), row.list(id_key).size());
        for (size_t i = 0; i < ids.size(); ++i) {
            ListReader list(lists, place(key, i));
            read_pair(*ids[i], *log_probs[i], list);
            list.end();
        }
        return lists;
    }
    const char* const key = find_one(row, entry_names);
    if (!key)
        fail(Exit::data,
             "{}: no lists of a teacher; found keys: {}; expected teacher_ids beside teacher_log_probs, or "
             "logprobs; columns renames keys",
             row.where(), found_keys(row.object()));
    const std::vector<const Json*> entries = choose(key);
    for (size_t i = 0; i < entries.size(); ++i) {
        ListReader list(lists, place(key, i));
        read_entry(*entries[i], list);
        list.end();
    }
    return lists;
}

}  // namespace colonnade
