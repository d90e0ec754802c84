#pragma once
// The loss of a unigram model: what is left to predict when every target is guessed from the frequency of targets
// alone. A trained model's validation loss has to be well below it; it is the zero line of the quickstart's report.

#include "data/store/store.h"

namespace colonnade {

/// Mean of -log p(target) over the weighted targets of `eval`, with p from the targets of `train` (add-one smoothed
/// over `vocab_size`). 0 where `eval` has no targets.
double unigram_loss(const TokenStore& train, const TokenStore& eval, int64_t vocab_size);

}  // namespace colonnade
