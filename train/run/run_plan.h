#pragma once

#include <string>

#include "data/packing/pack_schedule.h"
#include "train/run/save_plan.h"

namespace colonnade {

/// The exact numbers of steps, samples, tokens and bytes of a run, as text. Reads every epoch of `schedule`;
/// allocates nothing on the device.
std::string plan_text(const Session& session, PackSchedule& schedule, const SavePlan& saves, const Ranks& ranks);

}  // namespace colonnade
