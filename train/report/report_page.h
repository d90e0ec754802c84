#pragma once
// report_page: a run as one HTML page (report.html). It shows state and progress, curves, answers before and after, data, packing
// and a mask, memory and machine, config, metrics, warnings, starts and files. A section without content is left out.

#include <string>

#include "train/report/report_data.h"

namespace colonnade {

std::string report_page(const ReportData& run);

}  // namespace colonnade
