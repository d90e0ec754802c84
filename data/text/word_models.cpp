#include "data/text/word_models.h"

#include <algorithm>

#include "data/text/tokenizer_json.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {

static int32_t unknown_id(int32_t id, const std::string& unknown, std::string_view word, const std::string& where) {
    if (id < 0)
        fail(Exit::data, "{}: model: it has no piece for '{:.40}', and unk_token '{:.100}' is not in the vocabulary",
             where, word, unknown);
    return id;
}

WordPieceModel::WordPieceModel(const Json& json, const std::string& where)
    : where_(where),
      unknown_(json_text(json, "unk_token", where + ": model")),
      prefix_(json_text(json, "continuing_subword_prefix", where + ": model")),
      most_characters_(json_count(json, "max_input_chars_per_word", where + ": model")) {
    constexpr size_t most = limits::word_characters, longest = limits::token_bytes;
    if (most_characters_ > most)
        fail(Exit::data, "{}: model: max_input_chars_per_word: expected at most {}, found {}", where, most,
             most_characters_);
    read_vocabulary(json, where);
    for (const auto& [piece, id] : vocabulary_) longest_piece_ = std::max(longest_piece_, piece.size());
    if (longest_piece_ > longest)
        fail(Exit::data, "{}: model.vocab: a piece has {} bytes, expected at most {}", where, longest_piece_, longest);
}

void WordPieceModel::encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache&) const {
    const auto begins = [](char c) { return (c & 0xC0) != 0x80; };
    const size_t before = ids.size();
    const bool fits = static_cast<size_t>(std::count_if(word.begin(), word.end(), begins)) <= most_characters_;
    std::string piece;
    for (size_t begin = 0; begin < word.size();) {
        size_t end = fits ? std::min(word.size(), begin + longest_piece_) : begin;
        while (end > begin && end < word.size() && !begins(word[end])) --end;
        int32_t id = -1;
        while (id < 0 && end > begin) {
            piece = (begin > 0 ? prefix_ : "") + std::string(word.substr(begin, end - begin));
            id = id_of(piece);
            if (id >= 0) break;
            do --end;
            while (end > begin && !begins(word[end]));
        }
        if (id < 0) {
            ids.resize(before);
            return ids.push_back(unknown_id(id_of(unknown_), unknown_, word, where_));
        }
        ids.push_back(id);
        begin = end;
    }
}

WordLevelModel::WordLevelModel(const Json& json, const std::string& where)
    : where_(where), unknown_(json_text(json, "unk_token", where + ": model")) {
    read_vocabulary(json, where);
}

void WordLevelModel::encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache&) const {
    const int32_t id = id_of(word);
    ids.push_back(id >= 0 ? id : unknown_id(id_of(unknown_), unknown_, word, where_));
}

}  // namespace colonnade
