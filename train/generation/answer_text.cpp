#include "train/generation/answer_text.h"

#include <algorithm>
#include <utility>

namespace colonnade {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD: what a decoder makes of half a character
constexpr size_t longest_wait = 64;  ///< tokens: bad bytes in a row do not hold an answer back for ever

/// "<0x0A>": a run of such bytes is text only if all of it is well-formed.
bool is_byte(const std::string& piece) {
    return piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with(">");
}

/// What `now` has beyond `before`. A decoder may change what it said before; then from the next whole character on.
std::string beyond(const std::string& before, const std::string& now) {
    size_t at = std::min(before.size(), now.size());
    while (at < now.size() && (static_cast<unsigned char>(now[at]) & 0xC0) == 0x80) ++at;
    return now.substr(at);
}

/// The most bytes at the end of `text` that begin `stop` without being all of it.
size_t overlap(std::string_view text, std::string_view stop) {
    for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n)
        if (text.ends_with(stop.substr(0, n))) return n;
    return 0;
}

}  // namespace

AnswerText::AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops, SpecialTokens special)
    : tokenizer_(tokenizer), stops_(std::move(stops)), special_(special) {
    std::erase(stops_, std::string());
}

std::string AnswerText::text_of(size_t count) const {
    return tokenizer_.decode({recent_.begin(), recent_.begin() + static_cast<ptrdiff_t>(count)}, special_);
}

std::string AnswerText::add(int32_t token) {
    if (stopped_) return {};
    recent_.push_back(token);
    const std::string before = text_of(certain_), now = text_of(recent_.size());
    const bool waited = recent_.size() > certain_ + 1;
    const bool passed_over = special_ == SpecialTokens::skip && tokenizer_.is_special(token);
    const bool half = now.ends_with(replacement) || is_byte(tokenizer_.piece(token)) || (waited && passed_over);
    if (half && recent_.size() - certain_ < longest_wait) return {};
    std::string text = beyond(before, now);
    // Tokens without text, such as special ones, do not set a decoder's first token apart from the others.
    if (!text.empty()) recent_.erase(recent_.begin(), recent_.begin() + static_cast<ptrdiff_t>(certain_));
    certain_ = recent_.size();
    return release(std::move(text));
}

std::string AnswerText::finish() {
    if (stopped_) return {};
    std::string text = release(beyond(text_of(certain_), text_of(recent_.size())));
    certain_ = recent_.size();
    if (!stopped_) text += std::exchange(held_, {});
    return text;
}

/// Cuts at the first stop string, and keeps back what may begin one.
std::string AnswerText::release(std::string text) {
    held_ += text;
    size_t end = std::string::npos, keep = 0;
    for (const std::string& stop : stops_) {
        end = std::min(end, held_.find(stop));
        keep = std::max(keep, overlap(held_, stop));
    }
    stopped_ = end != std::string::npos;
    if (!stopped_) end = held_.size() - keep;
    std::string certain = held_.substr(0, end);
    held_.erase(0, end);
    return certain;
}

}  // namespace colonnade
