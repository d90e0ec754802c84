#include "data/rows/token_rows.h"

#include <algorithm>
#include <limits>

#include "engine/device/error.h"

namespace colonnade {
namespace {

/// 1: the token is learned. TRL writes completion_mask and assistant_masks, others the rest.
constexpr const char* loss_masks[] = {"completion_mask", "assistant_masks", "assistant_mask", "loss_mask",
                                      "response_mask",   "train_mask",      "target_mask"};
/// What a tokenizer returns besides, and says nothing about the loss.
constexpr const char* harmless_keys[] = {"token_type_ids", "special_tokens_mask", "length"};

void require_length(const RowFields& row, const std::string& key, const std::string& ids_key, size_t expected) {
    if (const size_t length = row.filled_list(key).size(); length != expected)
        fail(Exit::data, "{}: '{}' has {} entries, '{}' has {}; expected the same number", row.where(), row.name(key),
             length, row.name(ids_key), expected);
}

/// Throws if several documents are packed into the row: they would see each other.
void require_one_document(const RowFields& row, const std::string& prefix, size_t length, KeptTokens kept) {
    constexpr const char* way_out =
        "rows that were packed elsewhere are not supported: write one row for each document";
    const std::string lengths = prefix + "seq_lengths", positions = prefix + "position_ids";
    if (row.find_filled(lengths)) {
        const std::vector<int32_t> parts = read_ids(row, lengths, 0, "a number of tokens");
        if (parts.size() > 1) fail(Exit::data, "{}: {} documents; {}", row.place(lengths), parts.size(), way_out);
        const auto tokens = static_cast<size_t>(parts[0]);
        if (tokens != kept.end - kept.begin && tokens != length)
            fail(Exit::data, "{}: {} tokens, but '{}' has {}; expected the same number", row.place(lengths), tokens,
                 row.name(prefix + "input_ids"), kept.end - kept.begin);
    }
    if (!row.find_filled(positions)) return;
    const std::vector<int32_t> at = read_ids(row, positions, 0, "a position");
    require_length(row, positions, prefix + "input_ids", length);
    for (size_t i = kept.begin; i < kept.end; ++i)
        if (static_cast<size_t>(at[i]) != i - kept.begin)
            fail(Exit::data, "{}: {}[{}]: expected {}, found {}; {}", row.where(), row.name(positions), i,
                 i - kept.begin, at[i], way_out);
}

struct TokenRow {
    std::vector<int32_t> ids, labels;
    std::vector<float> weights;  ///< empty: all 1
    bool labelled = false;       ///< labels or masks say what is learned
};

/// Reads a weight for each token. Beside labels or loss masks they have to leave out the same tokens.
void read_token_weights(const RowFields& row, TokenRow& tokens) {
    const char* key = "token_weights";
    if (!row.find(key)) return;
    require_length(row, key, "input_ids", tokens.ids.size());
    const Json& list = row.list(key);
    const auto place = [&](size_t i) { return fmt::format("{}: {}[{}]", row.where(), row.name(key), i); };
    for (size_t i = 0; i < list.size(); ++i) {
        const std::optional<float> weight = weight_from(list[i]);
        if (!weight) refuse_weight(list[i], place(i));
        const bool selected = tokens.labels[i] != -100;
        if (tokens.labelled && selected != (*weight > 0))
            fail(Exit::data, "{}: found {}, but labels and loss masks {} the token; expected {}", place(i),
                 shown(list[i]), selected ? "select" : "leave out", selected ? "a weight above 0" : "0");
        if (*weight == 0) tokens.labels[i] = -100;
        tokens.weights.push_back(*weight);
    }
}

TokenRow read_token_row(const RowFields& row, const std::string& prefix) {
    const std::string ids_key = prefix + "input_ids", labels_key = prefix + "labels",
                      mask_key = prefix + "attention_mask";
    TokenRow result;
    result.ids = read_ids(row, ids_key, 0, "a token id");
    const size_t length = result.ids.size();
    result.labels = result.ids;
    if (row.find(labels_key)) {
        result.labels = read_ids(row, labels_key, -100, "a token id or -100");
        require_length(row, labels_key, ids_key, length);
        result.labelled = true;
    }
    for (const char* name : loss_masks) {
        const std::string key = prefix + name;
        if (!row.find(key)) continue;
        const std::vector<bool> learned = read_mask(row, key, ids_key, length);
        for (size_t i = 0; i < length; ++i)
            if (!learned[i]) result.labels[i] = -100;
        result.labelled = true;
    }
    if (prefix.empty()) read_token_weights(row, result);
    const KeptTokens kept = row.find(mask_key) ? read_padding(row, mask_key, ids_key, length) : KeptTokens{0, length};
    require_one_document(row, prefix, length, kept);
    for (const char* name : harmless_keys) (void)row.find(prefix + name);
    kept.cut(result.ids);
    kept.cut(result.labels);
    if (!result.weights.empty()) kept.cut(result.weights);
    return result;
}

bool begins_with(const std::vector<int32_t>& ids, const std::vector<int32_t>& prompt) {
    return ids.size() > prompt.size() && std::equal(prompt.begin(), prompt.end(), ids.begin());
}

/// The optional keys of one list of token ids, each with `prefix` in front.
std::vector<std::string> token_keys(const std::string& prefix) {
    std::vector<std::string> keys = {prefix + "labels", prefix + "attention_mask", prefix + "position_ids",
                                     prefix + "seq_lengths"};
    for (const char* name : loss_masks) keys.push_back(prefix + name);
    return keys;
}

}  // namespace

std::vector<int32_t> read_ids(const RowFields& row, const std::string& key, int32_t also, const char* expected) {
    constexpr auto greatest = std::numeric_limits<int32_t>::max();
    const Json& list = row.filled_list(key);
    std::vector<int32_t> ids;
    ids.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
        const bool fits = list[i].is_number_unsigned() ? list[i].get<uint64_t>() <= greatest
                                                       : list[i].is_number_integer() && list[i].get<int64_t>() == also;
        if (!fits)
            fail(Exit::data, "{}: {}[{}]: expected {}, found {}", row.where(), row.name(key), i, expected,
                 shown(list[i]));
        ids.push_back(list[i].get<int32_t>());
    }
    return ids;
}

std::vector<bool> read_mask(const RowFields& row, const std::string& key, const std::string& ids_key, size_t length) {
    require_length(row, key, ids_key, length);
    const Json& list = row.list(key);
    std::vector<bool> mask;
    for (size_t i = 0; i < length; ++i) {
        if (!list[i].is_boolean() && list[i] != 0 && list[i] != 1)
            fail(Exit::data, "{}: {}[{}]: expected 0 or 1, found {}", row.where(), row.name(key), i, shown(list[i]));
        mask.push_back(list[i].is_boolean() ? list[i].get<bool>() : list[i] == 1);
    }
    return mask;
}

KeptTokens read_padding(const RowFields& row, const std::string& key, const std::string& ids_key, size_t length) {
    const std::vector<bool> mask = read_mask(row, key, ids_key, length);
    const auto begin = std::ranges::find(mask, true), end = std::find(begin, mask.end(), false);
    if (begin == mask.end()) fail(Exit::data, "{}: every entry is padding", row.place(key));
    if (const auto again = std::find(end, mask.end(), true); again != mask.end())
        fail(Exit::data, "{}: {}[{}]: expected zeros (padding) at the ends alone, found 1 behind a 0", row.where(),
             row.name(key), again - mask.begin());
    return {static_cast<size_t>(begin - mask.begin()), static_cast<size_t>(end - mask.begin())};
}

std::vector<std::string> text_token_keys() {
    std::vector<std::string> keys = token_keys("");
    keys.insert(keys.end(), {"token_weights", "weight"});
    return keys;
}

std::vector<std::string> pair_token_keys() {
    std::vector<std::string> keys = {"prompt_input_ids", "prompt_attention_mask", "margin", "weight"};
    for (const char* prefix : {"chosen_", "rejected_"})
        for (const std::string& key : token_keys(prefix)) keys.push_back(key);
    return keys;
}

Row read_tokens(const RowFields& row) {
    TokenRow tokens = read_token_row(row, "");
    Row result;
    result.input_ids = std::move(tokens.ids);
    result.labels = std::move(tokens.labels);
    result.token_weights = std::move(tokens.weights);
    return result;
}

Row read_token_pair(const RowFields& row) {
    TokenRow prompt;
    if (row.find("prompt_input_ids")) prompt = read_token_row(row, "prompt_");
    if (prompt.labelled)
        fail(Exit::data, "{}: found labels or a loss mask of the prompt; expected those of the answers alone",
             row.place("prompt_input_ids"));
    std::vector<TokenRow> answers = {read_token_row(row, "chosen_"), read_token_row(row, "rejected_")};
    if (answers[0].labelled != answers[1].labelled)
        fail(Exit::data, "{}: found only one of '{}' and '{}' (or loss masks); expected both or neither", row.where(),
             row.name("chosen_labels"), row.name("rejected_labels"));
    const bool contained =
        !prompt.ids.empty() && begins_with(answers[0].ids, prompt.ids) && begins_with(answers[1].ids, prompt.ids);
    Row result;
    result.whole_answers = prompt.ids.empty() && !answers[0].labelled;
    for (auto& [ids, labels, weights, labelled] : answers) {
        if (contained && !labelled) std::fill_n(labels.begin(), prompt.ids.size(), -100);
        if (!contained) {
            ids.insert(ids.begin(), prompt.ids.begin(), prompt.ids.end());
            labels.insert(labels.begin(), prompt.ids.size(), -100);
        }
        Row& answer = result.answers.emplace_back();
        answer.input_ids = std::move(ids);
        answer.labels = std::move(labels);
    }
    return result;
}

}  // namespace colonnade
