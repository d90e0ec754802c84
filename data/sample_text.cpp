#include "data/sample_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/text/unicode.h"
#include "engine/device/terminal.h"

namespace colonnade {

static constexpr size_t shown_head = 80, shown_tail = 80;  // tokens shown of a long sample

/// Of each token of a whole sequence.
static std::vector<bool> learned_flags(const Sequence& sequence) {
    std::vector<bool> flags(static_cast<size_t>(sequence.length()));
    for (const auto& [begin, end, weight] : sequence.learned)
        std::fill(flags.begin() + begin, flags.begin() + end, true);
    return flags;
}

std::string marked(std::string_view text, LearnedMark mark) {
    if (mark == LearnedMark::brackets) return fmt::format("[{}]", text);
    std::string all;
    for (size_t begin = 0, end; begin < text.size(); begin = end) {
        end = std::min(text.find(' ', begin), text.size());
        if (end > begin) all += styled(text.substr(begin, end - begin), Style::underline);
        for (; end < text.size() && text[end] == ' '; ++end) all += ' ';
    }
    return all;
}

std::string visible(std::string_view text, LearnedMark mark, Spaces spaces) {
    std::string all;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\n')
            all += "\\n";
        else if (byte < 0x20 || byte == 0x7F || (c == ' ' && spaces == Spaces::escaped))
            all += fmt::format("\\x{:02x}", byte);
        else if (mark == LearnedMark::brackets && (c == '[' || c == ']' || c == '\\'))
            (all += '\\') += c;
        else
            all += c;
    }
    return all;
}

const char* text_of(LearnedMark mark) {
    return mark == LearnedMark::brackets ? "in [brackets]" : "underlined";
}

/// Tokens from `begin` on of a sequence that is `whole`. Only the head and the tail of many.
static std::string render(const std::vector<int32_t>& whole, const Sequence& sequence, size_t begin,
                          const Tokenizer* tokenizer, LearnedMark mark) {
    const std::vector<bool> flags = learned_flags(sequence);
    const auto learned = [&](size_t i) { return i < flags.size() && flags[i]; };
    const size_t end = whole.size();
    const bool complete = end - begin <= shown_head + shown_tail;
    const size_t head_end = complete ? end : begin + shown_head, tail_begin = complete ? end : end - shown_tail;
    std::string text;
    const auto add = [&](size_t from, size_t to) {
        for (size_t i = from, next; i < to; i = next) {
            std::string part;
            for (next = i; next < to && learned(next) == learned(i); ++next) {
                if (next > i) part += ' ';
                part += tokenizer ? visible(tokenizer->piece(whole[next]), mark, Spaces::escaped)
                                  : std::to_string(whole[next]);
            }
            text += (text.empty() ? "" : " ") + (learned(i) ? marked(part, mark) : part);
        }
    };
    add(begin, head_end);
    if (!complete) text += fmt::format(" ... {} tokens ...", tail_begin - head_end);
    add(tail_begin, end);
    return text;
}

std::string name_of_sequence(const Sample& sample, size_t s) {
    if (sample.pairs.empty()) return fmt::format("turn {}", s + 1);
    if (sample.sequences.size() > 2 && !chosen_come_last(sample)) return fmt::format("answer {}", s + 1);
    return std::ranges::find(sample.pairs, static_cast<int32_t>(s), &AnswerPair::better) != sample.pairs.end()
               ? "chosen"
               : "rejected";
}

std::string render_sample(const Sample& sample, const Tokenizer* tokenizer, LearnedMark mark) {
    const std::vector<Sequence>& sequences = sample.sequences;
    if (sequences.size() < 2) return render(sample.whole(0), sequences[0], 0, tokenizer, mark);
    const auto common = static_cast<size_t>(sample.common());
    std::vector<int32_t> prompt = sample.whole(0);
    prompt.resize(common);
    std::string text = "prompt    " + render(prompt, {}, 0, tokenizer, mark);
    for (size_t s = 0; s < sequences.size(); ++s)
        text += fmt::format("\n    {:<10}", name_of_sequence(sample, s)) +
                render(sample.whole(s), sequences[s], common, tokenizer, mark);
    return text;
}

/// The text of tokens from `begin` on, with the learned ones marked. Only the head and the tail of a long one.
static std::string marked_text(const std::vector<int32_t>& ids, const Sequence& sequence, size_t begin,
                               const Tokenizer& tokenizer, LearnedMark mark) {
    const std::vector<bool> flags = learned_flags(sequence);
    const auto learned = [&](size_t i) { return i < flags.size() && flags[i]; };
    const auto decoded = [&](size_t end) {
        return tokenizer.decode({ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(end)}, SpecialTokens::keep);
    };
    struct Part {
        size_t begin, end;
        bool learned;
    };
    std::vector<Part> parts;
    std::string all;
    for (size_t at = begin, end; at < ids.size(); at = end) {
        for (end = at; end < ids.size() && learned(end) == learned(at);) ++end;
        const std::string before = decoded(at), whole = decoded(end);
        const size_t part = all.size();
        all += visible(whole.substr(std::min(before.size(), whole.size())), mark, Spaces::kept);
        parts.push_back({part, all.size(), learned(at)});
    }
    std::string text;
    const auto add = [&](size_t from, size_t to) {
        for (const Part& part : parts) {
            const size_t first = std::max(part.begin, from), last = std::min(part.end, to);
            if (first >= last) continue;
            const std::string shown = all.substr(first, last - first);
            text += part.learned ? marked(shown, mark) : shown;
        }
    };
    constexpr size_t most = 500;
    if (all.size() <= 2 * most) return add(0, all.size()), text;
    size_t tail = all.size() - most;
    while (tail < all.size() && (static_cast<unsigned char>(all[tail]) & 0xC0) == 0x80) ++tail;
    add(0, well_formed_prefix(std::string_view(all).substr(0, most)));
    text += " ... ";
    add(tail, all.size());
    return text;
}

std::string sample_text(const Sample& sample, const Tokenizer& tokenizer, LearnedMark mark) {
    const std::vector<Sequence>& sequences = sample.sequences;
    std::vector<int32_t> prompt = sample.whole(0);
    if (sequences.size() < 2) return marked_text(prompt, sequences[0], 0, tokenizer, mark);
    const auto common = static_cast<size_t>(sample.common());
    prompt.resize(common);
    std::string text = "prompt: " + marked_text(prompt, {}, 0, tokenizer, mark);
    for (size_t s = 0; s < sequences.size(); ++s)
        text += fmt::format("\n{}: {}", name_of_sequence(sample, s),
                            marked_text(sample.whole(s), sequences[s], common, tokenizer, mark));
    return text;
}

}  // namespace colonnade
