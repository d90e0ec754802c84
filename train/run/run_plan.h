#pragma once

#include <string>

#include "data/packing/pack_schedule.h"
#include "train/run/session.h"

namespace colonnade {

/// The exact numbers of steps, samples, tokens and bytes of a run, as text. Reads every epoch of `schedule`;
/// allocates nothing on the device.
std::string plan_text(const Session& session, PackSchedule& schedule, const Ranks& ranks);

}  // namespace colonnade
