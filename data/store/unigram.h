#pragma once
// unigram_loss: loss of a unigram model, which predicts every target from the frequency of targets alone. The
// validation loss of a trained model must be well below it; training reports it as the baseline.

#include "data/store/store.h"

namespace colonnade {

/// Mean of -log p(target) over the weighted targets of `eval`; p is the frequency in the targets of `train`, add-one
/// smoothed over `vocab_size`. 0 if `eval` has no targets.
double unigram_loss(const TokenStore& train, const TokenStore& eval, int64_t vocab_size);

}  // namespace colonnade
