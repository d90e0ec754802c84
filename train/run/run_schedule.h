#pragma once
// The packs of every step of a run.

#include <string>

#include "data/packing/pack_schedule.h"
#include "train/run/session.h"

namespace colonnade {

PackSchedule run_schedule(const Session& session, int ranks);

/// What PackSchedule takes as the visible pairs of each sample. With document_mask: false all are 0: a row is one long text,
/// and its cost depends on its length alone.
std::vector<int64_t> visible_pairs(const Config& config, const TokenStore& store);

/// How even the first epoch is for several ranks: "the slowest of 2 has 1.3 % more work than an average one, by tokens and
/// visible pairs".
std::string waiting_text(PackSchedule& schedule);

}  // namespace colonnade
