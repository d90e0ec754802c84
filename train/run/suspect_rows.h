#pragma once
// The rows of a data set that a suspicious step learned from, for messages and the log.

#include <span>
#include <string>
#include <vector>

#include "data/packing/loader.h"
#include "engine/ranks/ranks.h"
#include "train/step/learner.h"

namespace colonnade {

/// "a.jsonl:3, a.jsonl:17 and 24 more"
std::string row_list(const std::vector<std::string>& places);

/// The places ("path:line") of samples of the store, in order, each once.
std::vector<std::string> places_of(const TokenStore& store, std::span<const int64_t> samples);

/// Sample i of a batch as a batch of its own. `teacher`: that of the loader, or null.
Batch alone(const TokenStore& store, const LoadedBatch& loaded, size_t i, const TeacherFile* teacher);

/// A step whose loss or gradients were not finite, with the weights that it began with.
struct BadStep {
    Learner& learner;
    const Context& ctx;
    const TokenStore& store;
    const PackSchedule& schedule;
    LoaderOptions loader;  ///< start_step: the step
    const Ranks& ranks;
};
/// Computes the step again, micro-step by micro-step, and says what came first: the weights of a parameter, the loss or
/// the gradient of a parameter, in which micro-step of which rank, and the rows of that micro-step that are not finite
/// alone, or all of its rows if there are none. Changes the gradients. All ranks call it, and get the same text.
std::string first_bad_number(const BadStep& step);

}  // namespace colonnade
