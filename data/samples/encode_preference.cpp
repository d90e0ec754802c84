// Encoder for preferences: every answer with its prompt, joined to one sample.

#include <algorithm>

#include "data/samples/encode.h"
#include "data/samples/join_branches.h"
#include "engine/device/error.h"

namespace colonnade {
Encoded Encoder::encode_preference(const Row& row, const std::string& where, TokenCache& cache) const {
    std::vector<TokenDraft> drafts;
    bool no_shared_message = false;
    for (const Row& answer : row.answers) {
        drafts.push_back(draft(answer, where, cache));
        no_shared_message |= !answer.messages.empty() && answer.prompt_messages == 0;
    }
    Encoded result = join_branches(std::move(drafts), row.whole_answers, options_, where);
    Sample& sample = result.sample;
    if (result.notes.dropped()) return result;
    sample.pairs = pairs_of(row, options_.ranked_pairs);
    if (sample.pairs.empty()) {
        result.notes.add(RowNote::dropped_nothing_learned);
        return result;
    }
    result.notes.add_if(std::ranges::any_of(sample.pairs, [](const AnswerPair& pair) { return pair.weight != 1; }),
                        RowNote::weighted);
    std::vector<int32_t> whole;
    for (size_t s = 0; s < sample.sequences.size(); ++s) {
        whole = sample.whole(s);
        result.notes.add_if(is_empty_answer(whole, sample.sequences[s].learned), RowNote::empty_answer);
    }
    const int64_t stem = sample.common();
    result.notes.add_if(no_shared_message || stem == 0 || (stem == 1 && whole[0] == bos_), RowNote::no_prompt);
    return result;
}

/// Whether the learned tokens are end tokens and white space only. White space may be spelled as bytes.
bool Encoder::is_empty_answer(const std::vector<int32_t>& tokens, const std::vector<LearnedSpan>& learned) const {
    const std::vector<int32_t> ends = stop_ids();
    for (const auto& [begin, end, weight] : learned) {
        for (int32_t i = begin; i < end; ++i) {
            const int32_t id = tokens[static_cast<size_t>(i)];
            if (std::ranges::find(ends, id) != ends.end()) continue;
            if (!tokenizer_) return false;
            std::string piece = tokenizer_->piece(id);
            for (const char* blank : {"\u2581", "<0x0A>", "<0x0D>", "<0x09>", "<0x20>"})
                for (size_t at; (at = piece.find(blank)) != std::string::npos;)
                    piece.erase(at, std::string(blank).size());
            if (piece.find_first_not_of(" \t\r\n") != std::string::npos) return false;
        }
    }
    return true;
}

}  // namespace colonnade
