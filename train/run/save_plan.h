#pragma once
// Whether the checkpoints of a run are written in the background (key async_save), and what that costs.

#include "engine/device/host_memory.h"
#include "engine/ranks/ranks.h"
#include "train/run/session.h"

namespace colonnade {

struct SavePlan {
    bool background = false;
    bool sharded = false;   ///< every rank writes its share
    size_t copy_bytes = 0;  ///< host memory of a rank that writes, for the copy of its share
    std::string text{};     ///< why the run waits for its saves, for the plan; empty if it does not, or saves nothing
};

/// async_save: auto means yes if the copy takes at most half of the host memory that the run leaves of `available`. Call
/// it before the learner exists.
SavePlan plan_saves(const Session& session, const Ranks& ranks, size_t available = available_memory());

}  // namespace colonnade
