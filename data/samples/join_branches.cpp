#include "data/samples/join_branches.h"

#include <algorithm>

#include "engine/device/error.h"

namespace colonnade {
namespace {

size_t common_prefix(const TokenDraft& a, const TokenDraft& b) {
    return static_cast<size_t>(std::ranges::mismatch(a.tokens, b.tokens).in1 - a.tokens.begin());
}

size_t common_prefix(const std::vector<TokenDraft>& drafts) {
    size_t common = drafts[0].tokens.size();
    for (const TokenDraft& draft : drafts) common = std::min(common, common_prefix(drafts[0], draft));
    return common;
}

size_t first_trained(const TokenDraft& draft) {
    return static_cast<size_t>(std::ranges::find_if(draft.weights, [](float w) { return w > 0; }) -
                               draft.weights.begin());
}

bool two_are_equal(const std::vector<TokenDraft>& drafts) {
    for (size_t i = 0; i < drafts.size(); ++i)
        for (size_t j = 0; j < i; ++j)
            if (drafts[i].tokens == drafts[j].tokens) return true;
    return false;
}

void cut(TokenDraft& draft, size_t length) {
    draft.tokens.resize(std::min(draft.tokens.size(), length));
    draft.weights.resize(draft.tokens.size());
}

/// Length of the sample: the stem once, and the rest of each draft.
size_t joined_length(const std::vector<TokenDraft>& drafts, size_t stem) {
    size_t sum = stem;
    for (const TokenDraft& draft : drafts) sum += draft.tokens.size() - std::min(draft.tokens.size(), stem);
    return sum;
}

/// Cuts the longest answers to one common length, the greatest with which the sample fits into `room` tokens.
void fit(std::vector<TokenDraft>& drafts, size_t stem, size_t room) {
    std::vector<size_t> lengths;
    lengths.reserve(drafts.size());
    for (const TokenDraft& draft : drafts) lengths.push_back(draft.tokens.size() - std::min(draft.tokens.size(), stem));
    std::ranges::sort(lengths);
    size_t left = room - std::min(room, stem), share = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
        share = left / (lengths.size() - i);
        if (lengths[i] > share) break;
        left -= lengths[i];
    }
    for (TokenDraft& draft : drafts) cut(draft, stem + share);
}

/// Applies the limits to the drafts. False if the row is dropped.
bool shorten(std::vector<TokenDraft>& drafts, size_t stem, const EncodeOptions& options, const std::string& where,
             Encoded& result) {
    const auto limit = static_cast<size_t>(options.max_length);
    const auto room = options.sample_length > 0 ? static_cast<size_t>(options.sample_length) : SIZE_MAX;
    const auto longest = static_cast<size_t>(result.full_length);
    const size_t together = joined_length(drafts, stem);
    if (longest <= limit && together <= room) return true;
    if (options.excess_length == ExcessLength::error) {
        if (longest > limit)
            fail(Exit::data, "{}: a prompt and its answer have {} tokens; expected at most max_length {}", where,
                 longest, limit);
        fail(Exit::data, "{}: the prompt and its {} answers have {} tokens; expected at most packing_length {}", where,
             drafts.size(), together, room);
    }
    if (options.excess_length == ExcessLength::drop) {
        result.notes.add(longest > limit ? RowNote::dropped_too_long : RowNote::dropped_no_room);
        return false;
    }
    for (TokenDraft& draft : drafts) cut(draft, limit);
    if (joined_length(drafts, stem) > room) fit(drafts, stem, room);
    result.notes.add(!std::ranges::all_of(drafts, &TokenDraft::is_trained) ? RowNote::dropped_no_room
                     : two_are_equal(drafts)                               ? RowNote::dropped_difference_cut
                                                                           : RowNote::truncated);
    return !result.notes.dropped();
}

}  // namespace

Sample front_code(const std::vector<TokenDraft>& wholes, size_t most) {
    Sample sample;
    for (size_t i = 0; i < wholes.size(); ++i) {
        const size_t shared = i > 0 ? std::min(most, common_prefix(wholes[i - 1], wholes[i])) : 0;
        const std::vector<int32_t>& tokens = wholes[i].tokens;
        sample.sequences.push_back({.shared = static_cast<int32_t>(shared),
                                    .tokens = {tokens.begin() + static_cast<std::ptrdiff_t>(shared), tokens.end()},
                                    .learned = learned_spans(wholes[i].weights)});
    }
    return sample;
}

std::vector<AnswerPair> pairs_of(const Row& row, RankedPairs ranked) {
    if (row.pairs.empty())
        return row.weight > 0 ? ranked_pairs(row.answers.size(), ranked, {.margin = row.margin, .weight = row.weight})
                              : std::vector<AnswerPair>();
    std::vector<AnswerPair> pairs;
    for (const auto& [better, worse, margin, weight] : row.pairs)
        if (const float product = weight * row.weight; product > 0) pairs.push_back({better, worse, margin, product});
    return pairs;
}

Encoded join_branches(std::vector<TokenDraft> drafts, bool whole_texts, const EncodeOptions& options,
                      const std::string& where) {
    require(drafts.size() >= 2, "{}: {} answers to join", where, drafts.size());
    Encoded result;
    for (const TokenDraft& draft : drafts) {
        result.full_length = std::max(result.full_length, static_cast<int64_t>(draft.tokens.size()));
        result.notes.add(draft.notes);
    }
    if (two_are_equal(drafts)) {
        result.notes.add(RowNote::dropped_same_answers);
        return result;
    }
    size_t stem = common_prefix(drafts);
    for (TokenDraft& draft : drafts) {
        // Nothing predicts a first token; the common prefix of whole texts is their prompt.
        const size_t masked = std::min(draft.weights.size(), whole_texts ? std::max<size_t>(stem, 1) : 1);
        std::fill_n(draft.weights.begin(), masked, 0.0f);
    }
    if (!std::ranges::all_of(drafts, &TokenDraft::is_trained)) {
        result.notes.add(RowNote::dropped_nothing_learned);
        return result;
    }
    for (const TokenDraft& draft : drafts) stem = std::min(stem, first_trained(draft));
    if (!shorten(drafts, stem, options, where, result)) return result;

    result.sample = front_code(drafts, stem);
    return result;
}

}  // namespace colonnade
