#pragma once
// Stage kto: what a session's samples must be, and what they are compared with.

#include "train/run/session.h"

namespace colonnade {

/// Checks that every sample of both splits is one answer with a label, counts the labels in a notice, and sets
/// StoreResult::mismatched if the objective needs it. Throws Exit::data for a sample that is no labelled answer, and if
/// all training samples have the same prompt although loss kto compares with answers to other prompts.
void settle_labelled_answers(Session& session);

}  // namespace colonnade
