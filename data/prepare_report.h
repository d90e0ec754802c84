#pragma once
// What `prepare` tells about a token store: counts, lengths, suspicious rows, what sharing prompts saves, how full the
// packs are, and the first sample token by token with the learned ones marked, so that a wrong template or mask is seen
// before training.

#include <string>

#include "data/packing/packer.h"
#include "data/store/build_store.h"
#include "data/text/tokenizer.h"

namespace colonnade {

/// Several lines of text. Plans epoch 0 under `packing` for the packing table. `tokenizer` may be null: ids are shown.
std::string prepare_report(const StoreResult& result, const PackSettings& packing, const Tokenizer* tokenizer);

/// "What|▁is|[▁it]|[</s>]": pieces of a sample, learned ones in brackets; of long samples the begin and the end. With
/// several branches a line for the prompt and one for each answer.
std::string render_sample(const Sample& sample, const Tokenizer* tokenizer);

}  // namespace colonnade
