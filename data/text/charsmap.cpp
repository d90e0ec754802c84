#include "data/text/charsmap.h"

#include <openssl/evp.h>
#include <unicode/ubrk.h>
#include <unicode/utext.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "data/text/split_pattern.h"
#include "data/text/unicode.h"
#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

constexpr uint32_t leaf_bit = uint32_t{1} << 31;
constexpr bool has_leaf(uint32_t unit) {
    return unit >> 8 & 1;
}
constexpr uint32_t offset_of(uint32_t unit) {
    return unit >> 10 << (unit & 1u << 9 ? 8 : 0);
}

std::string from_base64(const std::string& text, const std::string& where) {
    std::string bytes(text.size() / 4 * 3, '\0');
    const int size =
        text.size() % 4 == 0 && text.size() < limits::charsmap_bytes
            ? EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                              reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()))
            : -1;
    if (size < 0) fail(Exit::data, "{}: precompiled_charsmap: expected base64", where);
    const auto padding =
        static_cast<size_t>(std::count(text.end() - std::min<std::ptrdiff_t>(2, std::ssize(text)), text.end(), '='));
    bytes.resize(static_cast<size_t>(size) - padding);
    return bytes;
}

/// Ends of the grapheme clusters of texts, one text after the other.
class Clusters {
  public:
    Clusters() : breaks_(ubrk_open(UBRK_CHARACTER, "", nullptr, 0, &status_), ubrk_close) {
        require(U_SUCCESS(status_), "ICU has no rules for grapheme clusters");
    }
    void start(std::string_view text) {
        text_ = utext_openUTF8(text_, text.data(), static_cast<int64_t>(text.size()), &status_);
        ubrk_setUText(breaks_.get(), text_, &status_);
        require(U_SUCCESS(status_), "ICU cannot read a text");
    }
    size_t end_behind(size_t begin) {
        return static_cast<size_t>(ubrk_following(breaks_.get(), static_cast<int32_t>(begin)));
    }
    ~Clusters() { utext_close(text_); }
    Clusters(const Clusters&) = delete;
    Clusters& operator=(const Clusters&) = delete;

  private:
    UErrorCode status_ = U_ZERO_ERROR;
    std::unique_ptr<UBreakIterator, void (*)(UBreakIterator*)> breaks_;
    UText* text_ = nullptr;
};

}  // namespace

/// The array consists of blocks of 256 units, so place p ^ offset(u) ^ c is inside it if p ^ offset(u) is: checking each
/// unit once proves that every walk is safe.
void check_charsmap(std::string_view charsmap, const std::string& name) {
    const auto refuse = [&](std::string_view why) { fail(Exit::data, "{} is damaged: {}", name, why); };
    uint32_t trie_bytes = 0;
    if (charsmap.size() < sizeof(trie_bytes)) refuse("it is truncated");
    std::memcpy(&trie_bytes, charsmap.data(), sizeof(trie_bytes));
    charsmap.remove_prefix(sizeof(trie_bytes));
    if (trie_bytes == 0 || trie_bytes % (256 * sizeof(uint32_t)) != 0 || trie_bytes >= charsmap.size())
        refuse("its trie does not fit");
    const std::string_view texts = charsmap.substr(trie_bytes);
    if (texts.back() != '\0') refuse("its last string has no end");
    const uint32_t units = trie_bytes / sizeof(uint32_t);
    const auto unit_at = [&](uint32_t place) {
        uint32_t unit = 0;
        std::memcpy(&unit, charsmap.data() + place * sizeof(unit), sizeof(unit));
        return unit;
    };
    for (uint32_t place = 0; place < units; ++place) {
        const uint32_t unit = unit_at(place), begin = unit & ~leaf_bit;
        if (unit & leaf_bit) {
            if (begin >= texts.size()) refuse("a replacement is outside it");
            if ((texts[begin] & 0xC0) == 0x80) refuse("a replacement begins inside a character");
            continue;
        }
        const uint32_t children = place ^ offset_of(unit);
        if (children >= units) refuse("a branch leads outside it");
        if (has_leaf(unit) && !(unit_at(children) & leaf_bit)) refuse("a replacement is missing");
    }
}

Charsmap::Charsmap(const std::string& base64, const std::string& where) {
    const std::string bytes = from_base64(base64, where);
    check_charsmap(bytes, where + ": precompiled_charsmap");
    uint32_t trie_bytes = 0;
    std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
    trie_.resize(trie_bytes / sizeof(trie_[0]));
    std::memcpy(trie_.data(), bytes.data() + sizeof(trie_bytes), trie_bytes);
    texts_ = bytes.substr(sizeof(trie_bytes) + trie_bytes);
    if (well_formed_prefix(texts_) != texts_.size())
        fail(Exit::data, "{}: precompiled_charsmap: a replacement is ill-formed UTF-8", where);
}

std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
    uint32_t node = offset_of(trie_[0]);
    for (const char c : text) {
        const uint32_t label = static_cast<unsigned char>(c);
        node ^= label;
        if (c == '\0' || (trie_[node] & (leaf_bit | 0xFF)) != label) return std::nullopt;
        const bool leaf = has_leaf(trie_[node]);
        node ^= offset_of(trie_[node]);
        if (leaf) return texts_.data() + (trie_[node] & ~leaf_bit);  // up to NUL
    }
    return std::nullopt;
}

void Charsmap::append(std::string_view cluster, std::string& out) const {
    if (cluster.size() < 6)
        if (const auto found = replacement(cluster)) {
            out += *found;
            return;
        }
    for (size_t at = 0; at < cluster.size();) {
        const std::string_view character = cluster.substr(at, character_at(cluster.data() + at).bytes);
        out += replacement(character).value_or(character);
        at += character.size();
    }
}

std::string Charsmap::apply(std::string_view text) const {
    const auto is_ascii = [text](size_t i) { return i >= text.size() || static_cast<unsigned char>(text[i]) < 0x80; };
    thread_local Clusters clusters;
    bool started = false;
    std::string out;
    out.reserve(text.size());
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
        end = begin + 1;
        if (!is_ascii(begin) || !is_ascii(end)) {  // ICU is slow: it is asked about non-ASCII text only
            if (!started) clusters.start(text);
            started = true;
            end = clusters.end_behind(begin);
        } else if (text[begin] == '\r' && end < text.size() && text[end] == '\n') {
            ++end;
        }
        append(text.substr(begin, end - begin), out);
        check_text_size(out.size());
    }
    return out;
}

}  // namespace colonnade
