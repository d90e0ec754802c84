#include "data/samples/join_branches.h"

#include <algorithm>

#include "engine/device/error.h"

namespace colonnade {
namespace {

size_t common_prefix(const std::vector<Whole>& wholes) {
    size_t common = wholes[0].tokens.size();
    for (const Whole& whole : wholes) {
        const auto end = std::mismatch(wholes[0].tokens.begin(), wholes[0].tokens.begin() + std::ptrdiff_t(common),
                                       whole.tokens.begin(), whole.tokens.end());
        common = static_cast<size_t>(end.first - wholes[0].tokens.begin());
    }
    return common;
}

size_t first_learned(const Whole& whole) {
    return static_cast<size_t>(std::ranges::find_if(whole.weights, [](float w) { return w > 0; }) -
                               whole.weights.begin());
}

bool learns(const Whole& whole) {
    return first_learned(whole) < whole.weights.size();
}

bool two_are_equal(const std::vector<Whole>& wholes) {
    for (size_t i = 0; i < wholes.size(); ++i)
        for (size_t j = 0; j < i; ++j)
            if (wholes[i].tokens == wholes[j].tokens) return true;
    return false;
}

void cut(Whole& whole, size_t length) {
    whole.tokens.resize(std::min(whole.tokens.size(), length));
    whole.weights.resize(whole.tokens.size());
}

/// Tokens of the sample: the stem once, and what follows it in each whole.
size_t joined_length(const std::vector<Whole>& wholes, size_t stem) {
    size_t sum = stem;
    for (const Whole& whole : wholes) sum += whole.tokens.size() - std::min(whole.tokens.size(), stem);
    return sum;
}

/// Cuts the longest answers to one length, the greatest with which the sample has `room`.
void fit(std::vector<Whole>& wholes, size_t stem, size_t room) {
    std::vector<size_t> lengths;
    for (const Whole& whole : wholes) lengths.push_back(whole.tokens.size() - std::min(whole.tokens.size(), stem));
    std::ranges::sort(lengths);
    size_t left = room - std::min(room, stem), share = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
        share = left / (lengths.size() - i);
        if (lengths[i] > share) break;
        left -= lengths[i];
    }
    for (Whole& whole : wholes) cut(whole, stem + share);
}

/// Brings the wholes within the limits. False where they are to be dropped.
bool shorten(std::vector<Whole>& wholes, size_t stem, const EncodeOptions& options, const std::string& where,
             Encoded& result) {
    const auto limit = static_cast<size_t>(options.max_length);
    const auto room = options.sample_length > 0 ? static_cast<size_t>(options.sample_length) : SIZE_MAX;
    const auto longest = static_cast<size_t>(result.full_length);
    const size_t together = joined_length(wholes, stem);
    if (longest <= limit && together <= room) return true;
    if (options.excess_length == ExcessLength::error) {
        if (longest > limit)
            fail(Exit::data, "{}: a prompt and its answer have {} tokens; expected at most max_length {}", where,
                 longest, limit);
        fail(Exit::data, "{}: the prompt and its {} answers have {} tokens; expected at most packing_length {}", where,
             wholes.size(), together, room);
    }
    if (options.excess_length == ExcessLength::drop) {
        result.outcome = longest > limit ? Encoded::Outcome::dropped_too_long : Encoded::Outcome::dropped_no_room;
        return false;
    }
    result.outcome = Encoded::Outcome::truncated;
    for (Whole& whole : wholes) cut(whole, limit);
    if (joined_length(wholes, stem) > room) fit(wholes, stem, room);
    if (!std::ranges::all_of(wholes, learns))
        result.outcome = Encoded::Outcome::dropped_no_room;
    else if (two_are_equal(wholes))
        result.outcome = Encoded::Outcome::dropped_difference_cut;
    return result.outcome == Encoded::Outcome::truncated;
}

}  // namespace

Encoded join_branches(std::vector<Whole> wholes, bool whole_answers, const EncodeOptions& options,
                      const std::string& where) {
    require(wholes.size() >= 2, "{}: {} answers to join", where, wholes.size());
    Encoded result;
    for (const Whole& whole : wholes)
        result.full_length = std::max(result.full_length, static_cast<int64_t>(whole.tokens.size()));
    if (two_are_equal(wholes)) {
        result.outcome = Encoded::Outcome::dropped_same_answers;
        return result;
    }
    size_t stem = common_prefix(wholes);
    for (Whole& whole : wholes) {
        // Nothing predicts a first token; of whole texts, what they have in common is the prompt.
        const size_t unlearned = std::min(whole.weights.size(), whole_answers ? std::max<size_t>(stem, 1) : 1);
        std::fill_n(whole.weights.begin(), unlearned, 0.0f);
    }
    if (!std::ranges::all_of(wholes, learns)) {
        result.outcome = Encoded::Outcome::dropped_nothing_learned;
        return result;
    }
    for (const Whole& whole : wholes) stem = std::min(stem, first_learned(whole));
    if (!shorten(wholes, stem, options, where, result)) return result;

    Sample& sample = result.sample;
    const auto end_of_stem = static_cast<std::ptrdiff_t>(stem);
    sample.tokens.assign(wholes[0].tokens.begin(), wholes[0].tokens.begin() + end_of_stem);
    sample.weights.assign(stem, 0.0f);
    for (const Whole& whole : wholes) {
        sample.branch_begins.push_back(static_cast<int32_t>(sample.tokens.size()));
        sample.tokens.insert(sample.tokens.end(), whole.tokens.begin() + end_of_stem, whole.tokens.end());
        sample.weights.insert(sample.weights.end(), whole.weights.begin() + end_of_stem, whole.weights.end());
    }
    return result;
}

}  // namespace colonnade
