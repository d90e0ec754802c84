#pragma once
// The log-probabilities of learned tokens that a data set gives (data/samples/sample.h), and which of them a run of stage
// grpo uses or computes.

#include "train/run/session.h"

namespace colonnade {

/// Drops those that the run does not use, and adds notices about what is given and what is not. Throws Exit::data for
/// rows that the stage cannot learn from.
void settle_given_logps(Session& session);

/// What has to be computed before the first step. Nothing in other stages.
struct MissingLogps {
    bool old = false;        ///< with the weights that training starts from
    bool reference = false;  ///< with those, or with the reference model
    int tables() const { return int{old} + int{reference}; }
};
MissingLogps missing_logps(const Session& session);

}  // namespace colonnade
