#pragma once
// share_prefixes: whether the samples of a row share what they begin with.

#include "train/run/session.h"

namespace colonnade {

/// Sets StoreResult::prefixes of both splits as share_prefixes says. auto shares if that saves 1 % of the tokens or more
/// and changes nothing but rounding. Throws Exit::config for share_prefixes: true if the run cannot share.
void share_prefixes(Session& session);

}  // namespace colonnade
