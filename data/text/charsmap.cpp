#include "data/text/charsmap.h"

#include <openssl/evp.h>
#include <unicode/ubrk.h>
#include <unicode/utext.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "data/text/unicode.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

std::string from_base64(const std::string& text, const std::string& where) {
    std::string bytes(text.size() / 4 * 3, '\0');
    const int size =
        text.size() % 4 == 0 && text.size() < size_t{64} << 20
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

Charsmap::Charsmap(const std::string& base64, const std::string& where) {
    const std::string bytes = from_base64(base64, where);
    uint32_t trie_bytes = 0;
    if (bytes.size() >= sizeof(trie_bytes)) std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
    if (trie_bytes == 0 || trie_bytes % 4 != 0 || bytes.size() < sizeof(trie_bytes) + trie_bytes)
        fail(Exit::data, "{}: precompiled_charsmap: a trie of {} bytes in {} bytes", where, trie_bytes, bytes.size());
    trie_.resize(trie_bytes / 4);
    std::memcpy(trie_.data(), bytes.data() + sizeof(trie_bytes), trie_bytes);
    texts_ = bytes.substr(sizeof(trie_bytes) + trie_bytes);
    if (well_formed_prefix(texts_) != texts_.size())
        fail(Exit::data, "{}: precompiled_charsmap: a replacement is ill-formed UTF-8", where);
}

/// A unit of the trie: bit 31 and bits 0 to 7 the label, bit 8 a leaf follows, bits 9 to 30 the offset of the children.
/// A leaf holds the place of the replacement.
std::optional<std::string_view> Charsmap::replacement(std::string_view text) const {
    const auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
    uint32_t node = offset(trie_[0]);
    for (const char c : text) {
        const uint32_t label = static_cast<unsigned char>(c);
        node ^= label;
        if (c == '\0' || node >= trie_.size() || (trie_[node] & (1u << 31 | 0xFF)) != label) return std::nullopt;
        const bool leaf = trie_[node] >> 8 & 1;
        node ^= offset(trie_[node]);
        if (!leaf) continue;
        if (node >= trie_.size()) return std::nullopt;
        const uint32_t begin = trie_[node] & ~(1u << 31);
        if (begin > texts_.size()) return std::nullopt;
        return std::string_view(texts_).substr(begin, texts_.find('\0', begin) - begin);
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
        if (!is_ascii(begin) || !is_ascii(end)) {  // ICU is slow: ask it only where it matters
            if (!started) clusters.start(text);
            started = true;
            end = clusters.end_behind(begin);
        } else if (text[begin] == '\r' && end < text.size() && text[end] == '\n') {
            ++end;
        }
        append(text.substr(begin, end - begin), out);
    }
    return out;
}

}  // namespace colonnade
