#pragma once
// metric_charts: which metrics share a chart. A metric of evaluation, eval_x, goes with x; a/chosen goes with a/rejected.
// The loss comes first, the others in the order of the log. Counters and times of evaluations have no chart, but a line
// in the table of metrics.

#include <string>
#include <vector>

#include "train/report/chart.h"
#include "train/report/report_data.h"

namespace colonnade {

/// The charts of one run: with baseline, best evaluation, spikes and resumed steps.
std::vector<Chart> metric_charts(const ReportData& run);
/// The same metrics of several runs on top of each other, a colour for each.
std::vector<Chart> metric_charts(const std::vector<ReportData>& runs);

/// The loss of one run, for a file of its own. Throws Exit::data, naming the folder, if the log has none.
Chart loss_chart(const ReportData& run);

}  // namespace colonnade
