#include "data/text/byte_pair_model.h"

#include <algorithm>
#include <cstring>

#include "data/text/tokenizer_json.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr std::string_view word_mark = "\xE2\x96\x81";  // U+2581
constexpr uint32_t no_rank = ~0u;
constexpr uint64_t no_pair = ~uint64_t{0};
constexpr size_t scan_limit = 48;

struct ByteCharacters {
    uint32_t of_byte[256];
    int32_t byte_of[0x144];
    ByteCharacters() {
        std::fill(std::begin(byte_of), std::end(byte_of), -1);
        uint32_t next = 0x100;
        for (int b = 0; b < 256; ++b) {
            const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            of_byte[b] = itself ? static_cast<uint32_t>(b) : next++;
            byte_of[of_byte[b]] = b;
        }
    }
};
const ByteCharacters& byte_characters() {
    static const ByteCharacters table;
    return table;
}

}  // namespace

uint32_t byte_character(unsigned char byte) {
    return byte_characters().of_byte[byte];
}

bool spelled_bytes(std::string_view text, std::string& bytes) {
    bytes.clear();
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        const Character c = character_at(p);
        p += c.bytes;
        const int32_t byte = c.point < 0x144 ? byte_characters().byte_of[c.point] : -1;
        if (byte < 0) return false;
        bytes += static_cast<char>(byte);
    }
    return true;
}

BytePairModel::BytePairModel(const Json& json, Alphabet alphabet, const std::string& where) : alphabet_(alphabet) {
    if (const auto dropout = json.find("dropout"); dropout != json.end() && !dropout->is_null() && *dropout != 0.0)
        fail(Exit::data, "{}: model: dropout {} makes ids random; set it to null", where, dropout->dump());
    ignore_merges_ = json_flag(json, "ignore_merges", false, where + ": model");
    fuse_unknown_ = json_flag(json, "fuse_unk", false, where + ": model");
    byte_fallback_ = json_flag(json, "byte_fallback", false, where + ": model");
    prefix_ = json_text_or_nothing(json, "continuing_subword_prefix", where + ": model");
    suffix_ = json_text_or_nothing(json, "end_of_word_suffix", where + ": model");
    require(alphabet == Alphabet::characters || (!byte_fallback_ && prefix_.empty() && suffix_.empty()),
            "a BPE model over bytes has no byte fallback, prefix or suffix");
    read_vocabulary(json, where);
    std::string bytes;
    for (const auto& [piece, id] : vocabulary_)
        if (ignore_merges_ && (alphabet == Alphabet::characters || spelled_bytes(piece, bytes)))
            whole_words_.emplace(alphabet == Alphabet::characters ? piece : bytes, id);
    read_symbols(json, where);
    read_merges(json, where);
    find_joints();
}

void BytePairModel::read_symbols(const Json& json, const std::string& where) {
    for (int b = 0; b < 256; ++b) {
        std::string character;
        append_character(character, alphabet_ == Alphabet::bytes ? byte_character(static_cast<unsigned char>(b)) : b);
        byte_ids_[b] = id_of(character);
        fallback_ids_[b] = id_of(fmt::format("<0x{:02X}>", b));
    }
    if (const std::string unknown = json_text_or_nothing(json, "unk_token", where + ": model"); !unknown.empty()) {
        unknown_ = id_of(unknown);
        if (unknown_ < 0) fail(Exit::data, "{}: model.unk_token '{:.100}' is not in the vocabulary", where, unknown);
    }
}

void BytePairModel::read_merges(const Json& json, const std::string& where) {
    const auto merges = json.find("merges");
    if (merges == json.end() || !merges->is_array()) fail(Exit::data, "{}: model.merges: expected an array", where);
    size_t slots = 16;
    while (slots < 2 * merges->size()) slots *= 2;
    merges_.assign(slots, {no_pair, no_rank, -1});
    may_merge_.assign(slots / 16, 0);  // 8 bits or more for each merge
    products_.reserve(merges->size());
    const auto checked_id = [&](std::string_view piece, std::string_view merge) {
        const int32_t id = id_of(piece);
        if (id < 0)
            fail(Exit::data, "{}: model.merges: '{:.100}': '{:.100}' is not in the vocabulary", where, merge, piece);
        return id;
    };
    for (const Json& merge : *merges) {
        std::string left, right;
        if (merge.is_string()) {
            const auto& text = merge.get_ref<const std::string&>();
            if (text.starts_with("#version")) continue;
            const size_t space = text.find(' ');
            if (space == text.npos || text.find(' ', space + 1) != text.npos)
                fail(Exit::data, "{}: model.merges: '{:.100}': expected two pieces and one space", where, text);
            left = text.substr(0, space), right = text.substr(space + 1);
        } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
            left = merge[0], right = merge[1];
        } else {
            fail(Exit::data, "{}: model.merges: expected two pieces, found {:.100}", where, merge.dump());
        }
        if (!right.starts_with(prefix_))
            fail(Exit::data, "{}: model.merges: '{:.100}' does not begin with the prefix '{}'", where, right, prefix_);
        const std::string product = left + right.substr(prefix_.size());
        add_merge(checked_id(left, product), checked_id(right, product), checked_id(product, product));
    }
}

/// The next rank. Of a pair listed twice the later rank counts.
void BytePairModel::add_merge(int32_t left, int32_t right, int32_t product) {
    const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
    const uint64_t hash = mix(pair, 0x9E3779B97F4A7C15u);
    may_merge_[hash >> 6 & (may_merge_.size() - 1)] |= uint64_t{1} << (hash & 63);
    size_t slot = hash & (merges_.size() - 1);
    while (merges_[slot].pair != no_pair && merges_[slot].pair != pair) slot = (slot + 1) & (merges_.size() - 1);
    merges_[slot] = {pair, static_cast<uint32_t>(products_.size()), product};
    products_.push_back(product);
}

const BytePairModel::Merge* BytePairModel::find_merge(int32_t left, int32_t right) const {
    const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
    const uint64_t hash = mix(pair, 0x9E3779B97F4A7C15u);
    if (!(may_merge_[hash >> 6 & (may_merge_.size() - 1)] >> (hash & 63) & 1)) return nullptr;
    for (size_t slot = hash & (merges_.size() - 1);; slot = (slot + 1) & (merges_.size() - 1))
        if (merges_[slot].pair == pair)
            return &merges_[slot];
        else if (merges_[slot].pair == no_pair)
            return nullptr;
}

/// Decides whether a piece may be cut into words before U+2581. No merge crosses such a place unless its product, a
/// piece of the vocabulary, matches the text on both sides: the few pieces that can are the joints.
void BytePairModel::find_joints() {
    constexpr size_t most_joints = 32;
    if (alphabet_ != Alphabet::characters || ignore_merges_ || !prefix_.empty() || !suffix_.empty() ||
        !vocabulary_.contains(word_mark))
        return;
    // Merges of fallback bytes and of the unknown piece would form pieces whose text is not that of the document.
    std::vector<int32_t> nameless(fallback_ids_.begin(), fallback_ids_.end());
    nameless.push_back(unknown_);
    std::sort(nameless.begin(), nameless.end());
    const auto is_nameless = [&](uint64_t id) {
        return std::binary_search(nameless.begin(), nameless.end(), static_cast<int32_t>(id));
    };
    for (const Merge& merge : merges_)
        if (merge.pair != no_pair && (is_nameless(merge.pair >> 32) || is_nameless(merge.pair & ~0u))) return;
    for (const auto& [piece, id] : vocabulary_)
        for (size_t at = piece.find(word_mark, 1); at != piece.npos; at = piece.find(word_mark, at + 1)) {
            if (std::string_view(piece).substr(0, at).ends_with(word_mark)) continue;
            if (joints_.size() == most_joints) return;
            joints_.push_back({piece.substr(0, at), piece.substr(at)});
        }
    words_are_cut_ = true;
}

size_t BytePairModel::end_of_word(std::string_view piece, size_t begin) const {
    for (size_t at = begin + 1; at < piece.size(); ++at) {
        const void* lead = std::memchr(piece.data() + at, word_mark[0], piece.size() - at);
        if (!lead) break;
        at = static_cast<size_t>(static_cast<const char*>(lead) - piece.data());
        const std::string_view before = piece.substr(0, at), behind = piece.substr(at);
        if (!behind.starts_with(word_mark) || before.ends_with(word_mark)) continue;
        const auto joins = [&](const Joint& j) { return before.ends_with(j.before) && behind.starts_with(j.behind); };
        if (std::none_of(joints_.begin(), joints_.end(), joins)) return at;
    }
    return piece.size();
}

void BytePairModel::encode(std::string_view piece, std::vector<int32_t>& ids, BpeCache& cache) const {
    if (!words_are_cut_) return encode_word(piece, ids, cache);
    for (size_t begin = 0; begin < piece.size();) {
        const size_t end = end_of_word(piece, begin);
        encode_word(piece.substr(begin, end - begin), ids, cache);
        begin = end;
    }
}

void BytePairModel::encode_uncached(std::string_view word, std::vector<int32_t>& ids, BpeCache& cache) const {
    if (ignore_merges_)
        if (const auto found = whole_words_.find(word); found != whole_words_.end())
            return ids.push_back(found->second);
    cache.symbols_.clear();
    read_text(word, cache.symbols_);
    if (cache.symbols_.size() > scan_limit)
        merge_by_heap(cache.symbols_, cache);
    else if (cache.symbols_.size() > 1)
        merge_by_scan(cache.symbols_, cache);
    ids.insert(ids.end(), cache.symbols_.begin(), cache.symbols_.end());
}

int32_t BytePairModel::symbol(std::string_view character) const {
    if (alphabet_ == Alphabet::bytes || (character.size() == 1 && !(character[0] & 0x80)))
        return byte_ids_[static_cast<unsigned char>(character[0])];
    return id_of(character);
}

bool BytePairModel::fall_back_to_bytes(std::string_view character, std::vector<int32_t>& symbols) const {
    const auto id_of = [this](char c) { return fallback_ids_[static_cast<unsigned char>(c)]; };
    if (!byte_fallback_) return false;
    if (std::any_of(character.begin(), character.end(), [&](char c) { return id_of(c) < 0; })) return false;
    for (const char c : character) symbols.push_back(id_of(c));
    return true;
}

/// Appends the symbols of the characters. The unknown id of a character waits until the next known one, so that bytes
/// of a fallback overtake it: this order is the package's. A character without any symbol has none.
void BytePairModel::read_text(std::string_view word, std::vector<int32_t>& symbols) const {
    bool unknown_waits = false;
    std::string decorated;
    for (size_t at = 0, next = 0; at < word.size(); at = next) {
        next = at + (alphabet_ == Alphabet::bytes ? 1 : character_at(word.data() + at).bytes);
        std::string_view character = word.substr(at, next - at);
        if ((at > 0 && !prefix_.empty()) || (next == word.size() && !suffix_.empty())) {
            decorated = (at > 0 ? prefix_ : "") + std::string(character) + (next == word.size() ? suffix_ : "");
            character = decorated;
        }
        if (const int32_t id = symbol(character); id >= 0) {
            if (unknown_waits) symbols.push_back(unknown_);
            unknown_waits = false;
            symbols.push_back(id);
        } else if (!fall_back_to_bytes(character, symbols) && unknown_ >= 0) {
            if (unknown_waits && !fuse_unknown_) symbols.push_back(unknown_);
            unknown_waits = true;
        }
    }
    if (unknown_waits) symbols.push_back(unknown_);
}

/// Quadratic, but the fastest for words.
void BytePairModel::merge_by_scan(std::vector<int32_t>& ids, BpeCache& cache) const {
    size_t n = ids.size();
    std::vector<uint32_t>& ranks = cache.ranks_;
    ranks.resize(n);
    const auto rank_at = [&](size_t i) {
        const Merge* merge = i + 1 < n ? find_merge(ids[i], ids[i + 1]) : nullptr;
        return merge ? merge->rank : no_rank;
    };
    for (size_t i = 0; i < n; ++i) ranks[i] = rank_at(i);
    while (n > 1) {
        uint32_t lowest = no_rank;
        for (size_t i = 0; i + 1 < n; ++i) lowest = std::min(lowest, ranks[i]);
        if (lowest == no_rank) break;
        const auto best = static_cast<size_t>(std::find(ranks.begin(), ranks.end(), lowest) - ranks.begin());
        ids[best] = products_[lowest];
        const size_t moved = n - best - 2;
        std::memmove(&ids[best + 1], &ids[best + 1] + 1, moved * sizeof(ids[0]));
        std::memmove(&ranks[best + 1], &ranks[best + 1] + 1, moved * sizeof(ranks[0]));
        --n;
        ranks[best] = rank_at(best);
        if (best > 0) ranks[best - 1] = rank_at(best - 1);
    }
    ids.resize(n);
}

/// A heap of candidate merges over a linked list of symbols: n log n, for long runs.
void BytePairModel::merge_by_heap(std::vector<int32_t>& ids, BpeCache& cache) const {
    using Candidate = BpeCache::Candidate;
    const auto later = [](const Candidate& a, const Candidate& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    };
    const auto n = static_cast<int32_t>(ids.size());
    std::vector<int32_t>&next = cache.next_, &previous = cache.previous_;
    next.resize(ids.size());
    previous.resize(ids.size());
    for (int32_t i = 0; i < n; ++i) next[i] = i + 1 < n ? i + 1 : -1, previous[i] = i - 1;
    std::vector<Candidate>& heap = cache.heap_;
    heap.clear();
    const auto add = [&](int32_t at) {
        if (at < 0 || next[at] < 0) return;
        const Merge* merge = find_merge(ids[at], ids[next[at]]);
        if (!merge) return;
        heap.push_back({merge->rank, static_cast<uint32_t>(at), merge->id});
        std::push_heap(heap.begin(), heap.end(), later);
    };
    for (int32_t i = 0; i < n; ++i) add(i);
    while (!heap.empty()) {
        const Candidate best = heap.front();
        std::pop_heap(heap.begin(), heap.end(), later);
        heap.pop_back();
        const auto at = static_cast<int32_t>(best.at);
        if (ids[at] < 0 || next[at] < 0) continue;
        const int32_t right = next[at];
        const Merge* merge = find_merge(ids[at], ids[right]);
        if (!merge || merge->id != best.id) continue;  // a neighbour has changed since
        ids[at] = best.id;
        ids[right] = -1;
        next[at] = next[right];
        if (next[at] >= 0) previous[next[at]] = at;
        add(previous[at]);
        add(at);
    }
    ids.erase(std::remove(ids.begin(), ids.end(), -1), ids.end());
}

}  // namespace colonnade
