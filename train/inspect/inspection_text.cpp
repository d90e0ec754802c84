#include "train/inspect/inspection_text.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "attention/plan_picture.h"
#include "train/inspect/inspect_mask.h"

namespace colonnade {
namespace {

constexpr size_t listed_samples = 40, listed_places = 8;
constexpr size_t shown_head = 400, shown_tail = 100;  ///< tokens of a long sequence

/// Tokens of a row, or of a mask's side, for each of at most `columns` characters.
int64_t tokens_of_character(int64_t tokens, int64_t columns) {
    constexpr int64_t least = 16;
    return std::max(least, (tokens + columns - 1) / columns);
}

/// '1' to '9', 'a' to 'z', then again.
char sign_of(int32_t sample) {
    constexpr std::string_view signs = "123456789abcdefghijklmnopqrstuvwxyz";
    return sample < 0 ? '.' : signs[static_cast<size_t>(sample) % signs.size()];
}

/// A character for each part of the row, of as many tokens as a character of the mask below has.
template <typename Sign>
std::string strip(const std::string& name, const InspectedRow& row, int64_t tokens_each, Sign&& sign) {
    std::string text = fmt::format("{:>5} ", name);
    const int64_t length = std::ssize(row.ids);
    for (int64_t begin = 0; begin < length; begin += tokens_each)
        text += sign(static_cast<size_t>(begin), static_cast<size_t>(std::min(begin + tokens_each, length)));
    return text + '\n';
}

std::string strips(const InspectedRow& row, int64_t tokens_each) {
    const auto most_of = [&](size_t begin, size_t end) {
        std::vector<int32_t> part(row.samples.begin() + static_cast<ptrdiff_t>(begin),
                                  row.samples.begin() + static_cast<ptrdiff_t>(end));
        std::ranges::sort(part);
        int32_t best = part[0];
        int64_t most = 0;
        for (const int32_t sample : part)
            if (const int64_t count = std::ranges::count(part, sample); count > most) most = count, best = sample;
        return sign_of(best);
    };
    const auto share_of = [&](auto&& has) {
        return [&, has](size_t begin, size_t end) {
            size_t count = 0;
            for (size_t i = begin; i < end; ++i) count += has(i) ? 1U : 0U;
            return count == 0 ? '.' : count == end - begin ? '#' : '/';
        };
    };
    std::string text = strip("rows", row, tokens_each, most_of);
    if (std::ranges::any_of(row.users, [](int32_t users) { return users > 1; }))
        text += strip("many", row, tokens_each, share_of([&](size_t i) { return row.users[i] > 1; }));
    return text + strip("learn", row, tokens_each, share_of([&](size_t i) { return row.weights[i] > 0; }));
}

std::string mask_text(const InspectedMask& mask, int64_t columns) {
    const int64_t tile = tokens_of_character(std::max(mask.mask.rows, mask.mask.columns), columns);
    const TilePlan plan = make_tile_plan(mask.mask, tile, tile);
    return (mask.name.empty() ? "" : mask.name + ": ") + plan_picture({}, mask.mask, plan, columns);
}

std::string sample_table(const Inspection& all) {
    std::string text = fmt::format("\n{:>6} {:>8} {:>8}  {}\n", "sample", "tokens", "learned", "row of the data");
    size_t listed = 0;
    int64_t in_row = 0;
    for (const InspectedSample& sample : all.samples) {
        if (sample.sequences.empty() || sample.sequences[0].rows.empty()) break;
        if (++in_row > static_cast<int64_t>(listed_samples)) continue;
        int64_t learned = 0;
        for (const InspectedSequence& sequence : sample.sequences)
            learned += std::ranges::count_if(sequence.weights, [](float weight) { return weight > 0; });
        text += fmt::format("{:>6} {:>8} {:>8}  {}{}{}\n", std::string(1, sign_of(static_cast<int32_t>(listed++))),
                            sample.tokens, learned, sample.place, sample.notes.empty() ? "" : ": ",
                            fmt::join(sample.notes, ", "));
    }
    if (in_row > static_cast<int64_t>(listed))
        text += fmt::format("... and {} more\n", in_row - static_cast<int64_t>(listed));
    return text;
}

std::string note_text(const InspectedNote& note) {
    std::string places;
    if (!note.places.empty()) {
        const size_t shown = std::min(note.places.size(), listed_places);
        places = fmt::format(" ({}{})", fmt::join(note.places.begin(), note.places.begin() + shown, ", "),
                             note.rows > static_cast<int64_t>(shown) ? ", ..." : "");
    }
    return fmt::format("  {}, {}: {} row{}{}. {}\n", note.effect, note.label, note.rows, note.rows == 1 ? "" : "s",
                       places, note.meaning);
}

/// A sequence from `begin` on, the learned parts marked.
std::string marked_text(const InspectedSequence& sequence, size_t begin, size_t end, LearnedMark mark) {
    std::string text;
    for (size_t at = begin, next; at < end; at = next) {
        std::string part;
        const bool learned = sequence.weights[at] > 0;
        for (next = at; next < end && (sequence.weights[next] > 0) == learned; ++next)
            part += visible(sequence.texts[next], mark, Spaces::kept);
        text += learned ? marked(part, mark) : part;
    }
    return text;
}

std::string text_of_sample(const InspectedSample& sample, LearnedMark mark) {
    std::string text =
        fmt::format("\nsample {}, {} tokens; what is learned is {}\n", sample.place, sample.tokens, text_of(mark));
    for (const InspectedSequence& sequence : sample.sequences) {
        const bool several = sample.sequences.size() > 1;
        const auto shared = std::min(static_cast<size_t>(sequence.shared), sequence.ids.size());
        text += several ? fmt::format("{}{}: ", sequence.name,
                                      shared > 0 ? fmt::format(", behind {} tokens of the one before", shared) : "")
                        : "";
        const size_t end = sequence.ids.size();
        if (end - shared <= shown_head + shown_tail) {
            text += marked_text(sequence, shared, end, mark) + "\n";
            continue;
        }
        text += marked_text(sequence, shared, shared + shown_head, mark);
        text += fmt::format(" ... {} tokens ... ", end - shared - shown_head - shown_tail);
        text += marked_text(sequence, end - shown_tail, end, mark) + "\n";
    }
    return text;
}

}  // namespace

std::string inspection_text(const Inspection& all, int64_t columns, LearnedMark mark) {
    std::string text = all.title + "\n";
    for (const auto& [name, value] : all.facts) text += fmt::format("  {:<20}{}\n", name, value);
    for (const auto& line : all.fill_table) text += fmt::format("  {:<26}{}\n", line[0], line[1]);
    for (const auto& line : all.length_table) {
        text += fmt::format("  {:<8}", &line == &all.length_table[0] ? "length" : "tokens");
        for (const std::string& cell : line) text += fmt::format("{:>7}", cell);
        text += "\n";
    }
    for (const InspectedMask& mask : all.masks) {
        text += "\n";
        if (!all.row.ids.empty()) text += strips(all.row, tokens_of_character(std::ssize(all.row.ids), columns));
        text += mask_text(mask, columns);
    }
    if (all.samples.empty()) return text;
    text += sample_table(all);
    if (!all.notes.empty()) text += "\nnoted about rows of the data\n";
    for (const InspectedNote& note : all.notes) text += note_text(note);
    return text + text_of_sample(all.samples[all.shown], mark);
}

}  // namespace colonnade
