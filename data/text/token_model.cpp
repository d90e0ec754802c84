#include "data/text/token_model.h"

#include <algorithm>
#include <cstring>

#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr int64_t most_ids = limits::tokens;
constexpr size_t short_word = 15, most_short_ids = 3, long_word = 80, most_text = size_t{16} << 20;

template <typename T>
T load(const char* p) {
    T value;
    std::memcpy(&value, p, sizeof(T));
    return value;
}
uint64_t hash_text(std::string_view text) {
    uint64_t hash = text.size() * 0x9E3779B97F4A7C15u;
    for (; text.size() > 8; text.remove_prefix(8)) hash = mix(hash ^ load<uint64_t>(text.data()), 0xA0761D6478BD642Fu);
    uint64_t rest = 0;
    std::memcpy(&rest, text.data(), text.size());
    return mix(hash ^ rest, 0xE7037ED1A0B428DBu);
}
/// The 1 to 15 bytes of a word and their number, as two integers.
void pack_word(std::string_view word, uint64_t key[2]) {
    const char* p = word.data();
    const size_t n = word.size();
    key[1] = 0;
    if (n >= 8) {
        key[0] = load<uint64_t>(p);
        if (n > 8) key[1] = load<uint64_t>(p + n - 8) >> (8 * (16 - n));
    } else if (n >= 4) {
        key[0] = load<uint32_t>(p) | uint64_t{load<uint32_t>(p + n - 4)} << (8 * (n - 4));
    } else {
        key[0] = 0;
        for (size_t i = 0; i < n; ++i) key[0] |= uint64_t{static_cast<unsigned char>(p[i])} << (8 * i);
    }
    key[1] |= uint64_t{n} << 56;
}

}  // namespace

BpeCache::BpeCache() : short_words_(1 << 15), long_words_(1 << 16) {}

void TokenModel::add_piece(const std::string& piece, int64_t id, const std::string& where) {
    const auto at = static_cast<size_t>(id);
    if (id < 0 || id >= most_ids)
        fail(Exit::data, "{}: model.vocab: piece '{:.100}': expected an id from 0 to {}, found {}", where, piece,
             most_ids - 1, id);
    if (at >= taken_.size()) taken_.resize(std::max(at + 1, 2 * taken_.size()));
    if (taken_[at]) fail(Exit::data, "{}: model.vocab: two pieces have id {}, one is '{:.100}'", where, id, piece);
    taken_[at] = true;
    if (!vocabulary_.emplace(piece, static_cast<int32_t>(id)).second)
        fail(Exit::data, "{}: model.vocab: piece '{:.100}' is listed twice, the second time with id {}", where, piece,
             id);
}

void TokenModel::read_vocabulary(const Json& json, const std::string& where) {
    const auto vocab = json.find("vocab");
    if (vocab == json.end() || !vocab->is_object())
        fail(Exit::data, "{}: model.vocab: expected an object of pieces and ids", where);
    vocabulary_.reserve(vocab->size());
    for (const auto& [piece, value] : vocab->items()) {
        if (!value.is_number_unsigned() || value.get<uint64_t>() >= most_ids)
            fail(Exit::data, "{}: model.vocab: piece '{:.100}': expected an id from 0 to {}, found {:.40}", where,
                 piece, most_ids - 1, value.dump());
        add_piece(piece, value.get<int64_t>(), where);
    }
}

int32_t TokenModel::id_of(std::string_view piece) const {
    const auto found = vocabulary_.find(piece);
    return found == vocabulary_.end() ? -1 : found->second;
}

void TokenModel::encode_word(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const {
    if (word.empty()) return;
    if (word.size() > short_word) return encode_long_word(word, ids, cache);
    uint64_t key[2];
    pack_word(word, key);
    const size_t at = mix(key[0] ^ 0x9E3779B97F4A7C15u, key[1] ^ 0xA0761D6478BD642Fu) & (cache.short_words_.size() - 1);
    auto& set = cache.short_words_[at].ways;
    for (int way = 0; way < 2; ++way)
        if (set[way].key[0] == key[0] && set[way].key[1] == key[1]) {
            ids.insert(ids.end(), set[way].ids, set[way].ids + set[way].count);
            return;
        }
    const size_t before = ids.size();
    encode_long_word(word, ids, cache);
    const size_t count = ids.size() - before;
    if (count > most_short_ids) return;
    set[1] = set[0];
    set[0] = {{key[0], key[1]}, {}, static_cast<uint32_t>(count)};
    std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(before), count, set[0].ids);
}

/// Long words, and those of more ids than a short one has place for.
void TokenModel::encode_long_word(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const {
    if (word.size() > long_word) return encode_uncached(word, ids, cache);
    const uint64_t hash = hash_text(word) | 1;  // 0 marks a free slot
    BpeCache::LongWord& slot = cache.long_words_[(hash >> 20) & (cache.long_words_.size() - 1)];
    if (slot.hash == hash && std::string_view(cache.texts_).substr(slot.text, slot.bytes) == word) {
        const auto first = cache.ids_.begin() + slot.first;
        ids.insert(ids.end(), first, first + slot.count);
        return;
    }
    const size_t before = ids.size();
    encode_uncached(word, ids, cache);
    if (word.size() <= short_word && ids.size() - before <= most_short_ids) return;
    if (cache.texts_.size() > most_text) {
        std::fill(cache.long_words_.begin(), cache.long_words_.end(), BpeCache::LongWord{});
        cache.texts_.clear();
        cache.ids_.clear();
    }
    slot = {hash, static_cast<uint32_t>(cache.texts_.size()), static_cast<uint32_t>(word.size()),
            static_cast<uint32_t>(cache.ids_.size()), static_cast<uint32_t>(ids.size() - before)};
    cache.texts_ += word;
    cache.ids_.insert(cache.ids_.end(), ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
}

}  // namespace colonnade
