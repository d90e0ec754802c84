#pragma once
// The Subject of a user's run: the model, the objective and the adapters of its config, and samples of its data.

#include "train/run/session.h"
#include "train/selftest/subject.h"

namespace colonnade {

/// The learner options of a run for batches of this size. Without dropout, because the dropped elements depend on the
/// position of a sample in the batch, and without compute: fp8, with which a last bit decides about a rounding of 1/16.
LearnerOptions options_for_checks(const Session& session, const BatchRoom& room, Gpu* gpu);

/// What two layouts of a user's samples may differ by. f32: thousands of terms are summed in another order. bf16:
/// activations are rounded the other way.
double bound_of_layouts(Device device);

/// The first samples of the first rows, of about `tokens` tokens and at least one. The session and `gpu` must outlive it.
Subject session_subject(const Session& session, Gpu* gpu, int64_t tokens);
/// The same model as a language model, to generate with.
Subject generating(const Session& session, Subject subject, Gpu* gpu);

}  // namespace colonnade
