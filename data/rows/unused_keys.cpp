#include "data/rows/unused_keys.h"

#include <algorithm>
#include <set>

#include "engine/device/error.h"

namespace colonnade {
namespace {

using Words = std::set<std::string_view>;

/// Whether one of the words of `key` is in `words`. Words are separated by characters that are no letters.
bool has_word(std::string_view key, const Words& words) {
    const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    for (size_t begin = 0; begin < key.size();) {
        size_t end = begin;
        while (end < key.size() && is_letter(key[end])) ++end;
        std::string word(key.substr(begin, end - begin));
        std::ranges::transform(word, word.begin(), [](char c) { return static_cast<char>(c | 0x20); });
        if (words.contains(word)) return true;
        begin = end + 1;
    }
    return false;
}

const Words selecting = {"mask", "masks", "label", "labels", "weight", "weights", "loss"};
const Words media = {"image", "images", "video", "videos", "audio", "audios"};
/// Any of these words makes a key harmless: it describes the row or its origin. A longer string is prose, and counted.
constexpr size_t longest_description = 200;
const Words describing = {
    "id",      "ids",     "idx",       "index",   "uid",      "uuid",  "guid",      "hash",       "sha",
    "md",      "score",   "scores",    "rating",  "ratings",  "rank",  "reward",    "rewards",    "source",
    "sources", "dataset", "datasets",  "origin",  "subset",   "split", "category",  "categories", "subcategory",
    "domain",  "topic",   "task",      "type",    "tag",      "tags",  "lang",      "language",   "locale",
    "license", "url",     "urls",      "author",  "date",     "time",  "timestamp", "created",    "updated",
    "model",   "models",  "generator", "quality", "level",    "num",   "count",     "length",     "lengths",
    "version", "meta",    "metadata",  "file",    "filename", "path",  "line",      "difficulty",
};

[[noreturn]] void refuse(const RowFields& row, const std::string& key, const std::string& why) {
    fail(Exit::data, "{}: key '{}': {}; if it does not matter, add ignore_columns: [{}] to the data set", row.where(),
         shown_key(key), why, shown_key(key));
}

bool is_empty(const Json& value) {
    return value.is_structured() ? value.empty() : value.is_string() && value.get_ref<const std::string&>().empty();
}

}  // namespace

bool may_select_tokens(std::string_view key) {
    return has_word(key, selecting);
}

std::vector<std::string> unused_keys(const RowFields& row) {
    std::vector<std::string> counted;
    for (const auto& [key, value] : row.unread()) {
        if (is_empty(value)) continue;
        if ((key == "label" || key == "kto_tag") && value.is_boolean())
            refuse(
                row, key,
                "it marks answers as good or bad, and only stage kto learns from that; stage sft needs the good ones "
                "alone");
        if (may_select_tokens(key))
            refuse(row, key, "it may say what is learned, but rows of this format have no such key");
        if (has_word(key, media)) refuse(row, key, "Colonnade trains on text only");
        if (key == row.name("system"))
            refuse(row, key,
                   "plain text has no system turn: rows of messages do, and type alpaca with columns reads strings as "
                   "a chat");
        const bool is_prose = value.is_string() && value.get_ref<const std::string&>().size() > longest_description;
        if (is_prose || !has_word(key, describing)) counted.push_back(shown_key(key));
    }
    return counted;
}

}  // namespace colonnade
