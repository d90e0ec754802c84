#pragma once

#include "train/report/report_facts.h"
#include "train/run/run_plan.h"

namespace colonnade {

/// What the report shows of a run before its first step. `plan`: as plan_text() gives it. Builds the first batch on the host,
/// and the plan of the first epoch.
ReportFacts facts_of_run(const PlannedRun& run, const std::string& plan, double unigram_loss);

}  // namespace colonnade
