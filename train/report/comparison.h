#pragma once
// Comparison: several runs beside each other: their states, the keys in which their configs differ, their final numbers
// and their curves.

#include <string>
#include <vector>

#include "train/report/report_data.h"

namespace colonnade {

struct ComparedRow {
    std::string name;
    std::vector<std::string> values;  ///< one per run
};

struct Comparison {
    std::vector<std::string> runs;  ///< their names, or folders if names are equal
    std::vector<ComparedRow> states{};
    std::vector<ComparedRow> config{};   ///< keys that differ; those that only name a folder or a resume are left out
    std::vector<ComparedRow> numbers{};  ///< the last value of every metric; the best evaluation
};
Comparison comparison_of(const std::vector<ReportData>& runs);

/// Tables for a terminal, which has `columns`: long values are shortened in the middle. 0: never.
std::string comparison_text(const Comparison& comparison, size_t columns);
/// One HTML page.
std::string comparison_page(std::vector<ReportData> runs);

}  // namespace colonnade
