// Encoder for preferences: every answer with its prompt, joined to one sample.

#include <algorithm>

#include "data/samples/encode.h"
#include "data/samples/join_branches.h"
#include "engine/device/error.h"

namespace colonnade {

Encoded Encoder::encode_preference(const Row& row, const std::string& where, TokenCache& cache) const {
    const auto answers = static_cast<int64_t>(row.answers.size());
    if (options_.max_answers > 0 && answers > options_.max_answers)
        fail(Exit::data, "{}: {} answers; expected {}: longer rankings need a reward model (stage rm)", where, answers,
             options_.max_answers);
    std::vector<TokenDraft> drafts;
    bool no_shared_message = false;
    for (const Row& answer : row.answers) {
        drafts.push_back(draft(answer, where, cache));
        no_shared_message |= !answer.messages.empty() && answer.prompt_messages == 0;
    }
    Encoded result = join_branches(std::move(drafts), row.whole_answers, options_, where);
    Sample& sample = result.sample;
    sample.margin = row.margin;
    for (size_t branch = 0; branch < sample.branch_begins.size(); ++branch)
        result.notes.add_if(is_empty_answer(sample, branch), RowNote::empty_answer);
    const int64_t stem = sample.stem();
    result.notes.add_if(no_shared_message || stem == 0 || (stem == 1 && sample.tokens[0] == bos_), RowNote::no_prompt);
    return result;
}

/// Whether the trained tokens of a branch are end tokens and white space only. White space may be spelled as bytes.
bool Encoder::is_empty_answer(const Sample& sample, size_t branch) const {
    const std::vector<int32_t> ends = stop_ids();
    const auto end = static_cast<size_t>(sample.branch_end(branch));
    for (auto i = static_cast<size_t>(sample.branch_begins[branch]); i < end; ++i) {
        const int32_t id = sample.tokens[i];
        if (sample.weights[i] == 0 || std::ranges::find(ends, id) != ends.end()) continue;
        if (!tokenizer_) return false;
        std::string piece = tokenizer_->piece(id);
        for (const char* blank : {"\u2581", "<0x0A>", "<0x0D>", "<0x09>", "<0x20>"})
            for (size_t at; (at = piece.find(blank)) != std::string::npos;) piece.erase(at, std::string(blank).size());
        if (piece.find_first_not_of(" \t\r\n") != std::string::npos) return false;
    }
    return true;
}

}  // namespace colonnade
