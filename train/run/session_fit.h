#pragma once
// The key fit for the run of a session (train/run/find_fit.h).

#include "train/run/session.h"

namespace colonnade {

/// `session` must outlive the result.
FitSubject fit_subject(const Session& session, const Ranks& ranks);
/// The average token of the training data.
StepAmounts amounts_of_token(const Session& session);

/// With fit: auto, changes the config and sets session.fit. All ranks call it, and make the same choice.
void fit_session(Session& session, const Ranks& ranks, SessionUse use);

/// What fit has done, and whether the run fits into the memory that the keys allow; empty if there is nothing to say.
std::string fit_text(const Session& session, const Ranks& ranks);

}  // namespace colonnade
