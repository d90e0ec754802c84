#pragma once
// The inspection of a run's data: one packed row as the first epoch has it, its samples token by token, and what was
// noted about rows of the whole data set, with some of the suspicious ones.

#include "train/inspect/inspection.h"
#include "train/run/session.h"

namespace colonnade {

/// Which packed row is shown.
struct InspectedChoice {
    bool eval = false;     ///< of the evaluation data
    int64_t row = 0;       ///< number of the packed row, from 1; 0: that of `sample`, else the first
    std::string sample{};  ///< place of a row of the data: "chats.jsonl:3", or as much of its end as is clear
};

/// Throws Exit::config for a row or a sample that is not there; says so if the sample was dropped.
Inspection inspect_run(const Session& session, const InspectedChoice& choice);

/// What each token adds to the text of those before it. Joined they are the text, special tokens included. A token that
/// has a part of a character only adds nothing; the one that completes it adds all of it.
std::vector<std::string> token_texts(const Tokenizer& tokenizer, const std::vector<int32_t>& ids);

}  // namespace colonnade
