#pragma once

#include "engine/ranks/ranks.h"
#include "train/config/config.h"
#include "train/run/session.h"
#include "train/step/learner.h"

namespace colonnade {

/// The learner of a run: the objective of its stage, its adapters, and, if the config says so, the base as the
/// reference of every batch. Planning memory needs neither GPU nor communicator.
LearnerOptions learner_options(const Config& config, const Ranks& ranks = one_rank(), Gpu* gpu = nullptr,
                               Communicator* communicator = nullptr);

/// Upper bounds for batches of the session's samples, whose rows share prefixes or not.
BatchDensity density_of(const Session& session);

}  // namespace colonnade
