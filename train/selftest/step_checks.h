#pragma once
// Checks of a training step on a Subject. All compare loss, metrics and gradients of the same samples in two layouts, or
// the bits of two runs.

#include "train/selftest/check.h"
#include "train/selftest/subject.h"

namespace colonnade {

/// Packed rows with the samples alone.
Finding check_packed(const Subject& subject);
/// One micro-step of four packs with four of one pack.
Finding check_accumulation(const Subject& subject);
/// The micro-steps of a step as PackSchedule deals them to one rank, and to two whose sums are added here.
Finding check_ranks(const Subject& subject);
/// Every parameter's gradient with central differences of the loss along it, in double: the subject's learner has f64.
Finding check_gradients(const Subject& exact);
/// Gradients on the device with those of `exact`, a subject of the same models and samples in double.
Finding check_device_gradients(const Subject& subject, const Subject& exact);

/// Two runs of two updates: numbers of weights and optimizer state whose bits differ.
Finding check_determinism(const Subject& subject);
/// An update after a checkpoint, and the same one in another learner that loaded it. The checkpoint is in a temporary
/// folder, and is skipped with the figures if there is no space for it.
Finding check_resume(const Subject& subject);

/// Greedy answers token by token through the cache, with logits of one pass over prompt and answer, which needs none.
Finding check_generation(const Subject& subject);

}  // namespace colonnade
