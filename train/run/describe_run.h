#pragma once
// What the logs of a run say of it besides its numbers.

#include "train/config/config.h"
#include "train/log/metrics_log.h"

namespace colonnade {

/// run_name, or the last folder of output_dir.
std::string name_of_run(const Config& config);
/// `plan`: as plan_text() gives it.
RunDescription describe_run(const Config& config, const std::string& plan);
/// The files that report_to asks for.
LogFiles log_files(const Config& config);

}  // namespace colonnade
