#pragma once
// The packs of every step of a run.

#include "data/packing/pack_schedule.h"
#include "train/run/session.h"

namespace colonnade {

PackSchedule run_schedule(const Session& session, int ranks);

}  // namespace colonnade
