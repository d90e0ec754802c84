// Encoder for preferences of several turns: one sample whose sequences share the conversation.
//
// Each answer is encoded behind the messages before it, as it would be generated. Those of a turn follow each other,
// the chosen one last, so that the next turn continues from it: a walk over the tree, in which nothing is there twice.
// A pair learns its own turn alone, and pairs do not depend on each other: one that cannot be learned is left out, and
// a tree that is too long becomes several samples.

#include <algorithm>
#include <iterator>

#include "data/samples/encode.h"
#include "data/samples/join_branches.h"
#include "engine/device/error.h"

namespace colonnade {
namespace {

/// Applies max_length. Returns what keeps the answer from being learned, or that it was cut.
RowNotes fit(TokenDraft& draft, const EncodeOptions& options, const std::string& where) {
    const auto limit = static_cast<size_t>(options.max_length);
    RowNotes notes;
    notes.add_if(!draft.is_trained(), RowNote::dropped_nothing_learned);
    if (draft.tokens.size() <= limit) return notes;
    if (options.excess_length == ExcessLength::error)
        fail(Exit::data, "{}: an answer has {} tokens with the messages before it; expected at most max_length {}",
             where, draft.tokens.size(), limit);
    if (options.excess_length == ExcessLength::drop) notes.add(RowNote::dropped_too_long);
    draft.tokens.resize(limit);
    draft.tokens.shrink_to_fit();
    draft.weights.resize(limit);
    draft.weights.shrink_to_fit();
    notes.add(RowNote::truncated);
    notes.add_if(!draft.is_trained(), RowNote::dropped_no_room);
    return notes;
}

/// The drafts that the pairs compare, in their order, as one tree.
Sample tree_of(std::vector<TokenDraft> drafts, const std::vector<AnswerPair>& pairs) {
    std::vector<int32_t> numbers(drafts.size(), -1);
    for (const AnswerPair& pair : pairs)
        for (const int32_t answer : {pair.better, pair.worse}) numbers[static_cast<size_t>(answer)] = 0;
    std::vector<TokenDraft> compared;
    for (size_t i = 0; i < drafts.size(); ++i) {
        if (numbers[i] < 0) continue;
        numbers[i] = static_cast<int32_t>(compared.size());
        compared.push_back(std::move(drafts[i]));
    }
    Sample tree = front_code(compared);
    for (const auto& [better, worse, margin, weight] : pairs)
        tree.pairs.push_back(
            {numbers[static_cast<size_t>(better)], numbers[static_cast<size_t>(worse)], margin, weight});
    return tree;
}

}  // namespace

Encoded Encoder::encode_several_turns(const Row& row, const std::string& where, TokenCache& cache) const {
    Encoded result;
    std::vector<TokenDraft> drafts;
    std::vector<RowNotes> notes;  // of each draft
    for (const Row& answer : row.answers) {
        TokenDraft& draft = drafts.emplace_back(this->draft(answer, where, cache));
        result.full_length = std::max(result.full_length, static_cast<int64_t>(draft.tokens.size()));
        result.notes.add(draft.notes);
        draft.weights[0] = 0;
        notes.push_back(fit(draft, options_, where));
        result.notes.add_if(is_empty_answer(draft.tokens, learned_spans(draft.weights)), RowNote::empty_answer);
    }
    RowNotes left_out;
    std::vector<AnswerPair> pairs;
    for (const AnswerPair& pair : pairs_of(row, options_.ranked_pairs)) {
        const auto better = static_cast<size_t>(pair.better), worse = static_cast<size_t>(pair.worse);
        RowNotes own = notes[better];
        own.add(notes[worse]);
        if (drafts[better].tokens == drafts[worse].tokens)
            own.add(own.has(RowNote::truncated) ? RowNote::dropped_difference_cut : RowNote::dropped_same_answers);
        (own.dropped() ? left_out : result.notes).add(own);
        result.notes.add_if(!own.dropped() && pair.weight != 1, RowNote::weighted);
        if (!own.dropped()) pairs.push_back(pair);
    }
    divide(tree_of(std::move(drafts), pairs), where, left_out, result);
    return result;
}

/// Makes the samples of a tree of pairs; `left_out`: why pairs of the row are not in it.
void Encoder::divide(const Sample& tree, const std::string& where, RowNotes left_out, Encoded& result) const {
    const int64_t room = options_.sample_length > 0 ? options_.sample_length : INT64_MAX;
    const auto fits = [&](const Sample& part) { return part.length() <= room; };
    std::vector<Sample> parts = split_sample(tree, fits);
    for (const Sample& part : parts)
        if (options_.excess_length == ExcessLength::error && !fits(part))
            fail(Exit::data,
                 "{}: the answers of a turn have {} tokens with the messages before them; expected at most "
                 "packing_length {}",
                 where, part.length(), room);
    left_out.add_if(std::erase_if(parts, std::not_fn(fits)) > 0, RowNote::dropped_no_room);
    if (parts.empty()) {
        left_out.add_if(!left_out.dropped(), RowNote::dropped_nothing_learned);
        result.notes.add(left_out);
        return;
    }
    result.notes.add_if(left_out.any(), RowNote::answers_left_out);
    result.sample = std::move(parts.front());
    result.more.assign(std::make_move_iterator(parts.begin() + 1), std::make_move_iterator(parts.end()));
}

}  // namespace colonnade
