#include "data/text/added_tokens.h"

#include <algorithm>

#include "data/text/unicode.h"

namespace colonnade {
namespace {

bool is_class(const Character& c, unsigned classes) {
    return unicode_class(c.point) & classes;
}
/// Whether a character of a word touches [begin, end).
bool inside_word(std::string_view text, size_t begin, size_t end) {
    return (begin > 0 && is_class(character_before(text.data() + begin), unicode::word_rust)) ||
           (end < text.size() && is_class(character_at(text.data() + end), unicode::word_rust));
}
size_t strip_left(std::string_view text, size_t begin) {
    while (begin > 0) {
        const Character c = character_before(text.data() + begin);
        if (!is_class(c, unicode::space)) break;
        begin -= c.bytes;
    }
    return begin;
}
size_t strip_right(std::string_view text, size_t end) {
    while (end < text.size()) {
        const Character c = character_at(text.data() + end);
        if (!is_class(c, unicode::space)) break;
        end += c.bytes;
    }
    return end;
}

}  // namespace

void AddedTokens::add(std::string_view spelling, const AddedToken* token) {
    if (spelling.empty()) return;
    uint32_t at = 0;
    for (const char c : spelling) {
        auto& children = nodes_[at].children;
        const auto child = std::find_if(children.begin(), children.end(), [c](const auto& e) { return e.first == c; });
        if (child != children.end()) {
            at = child->second;
            continue;
        }
        const auto fresh = static_cast<uint32_t>(nodes_.size());
        children.emplace_back(c, fresh);
        if (at == 0) first_[static_cast<unsigned char>(c)] = fresh;
        nodes_.emplace_back();
        at = fresh;
    }
    if (!nodes_[at].token) nodes_[at].token = token;
}

AddedTokens::Match AddedTokens::longest_at(std::string_view text, size_t begin) const {
    Match longest{nullptr, begin};
    uint32_t at = first_[static_cast<unsigned char>(text[begin])];
    for (size_t end = begin + 1; at != 0; ++end) {
        if (nodes_[at].token) longest = {nodes_[at].token, end};
        if (end == text.size()) break;
        uint32_t next = 0;
        for (const auto& [c, child] : nodes_[at].children)
            if (c == text[end]) next = child;
        at = next;
    }
    return longest;
}

bool AddedTokens::split(std::string_view text, std::span<const Span> plain, std::vector<TextPart>& parts) const {
    bool passed_over = false;
    auto span = plain.begin();
    size_t cut = 0;  // the end of the last part
    for (size_t at = 0; !empty() && at < text.size();) {
        if (first_[static_cast<unsigned char>(text[at])] == 0) {
            ++at;
            continue;
        }
        const Match match = longest_at(text, at);
        if (!match.token) {
            ++at;
            continue;
        }
        size_t begin = at, end = match.end;
        at = match.end;  // also behind a match that is dropped: shorter ones at this place are not tried
        if (match.token->special) {
            while (span != plain.end() && span->end <= begin) ++span;
            if (span != plain.end() && span->begin < end && span->size() > 0) {
                passed_over = true;
                continue;
            }
        }
        if (match.token->single_word && inside_word(text, begin, end)) continue;
        if (match.token->left_strip) begin = std::max(strip_left(text, begin), cut);
        if (match.token->right_strip) end = strip_right(text, end);
        if (cut < begin) parts.push_back({cut, begin, nullptr});
        parts.push_back({begin, end, match.token});
        cut = end;  // the search does not skip the white space: a token in it is found again
    }
    if (cut != text.size()) parts.push_back({cut, text.size(), nullptr});
    return passed_over;
}

}  // namespace colonnade
