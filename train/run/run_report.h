#pragma once
// RunReport: report.html of a run, made from the files in its folder: report.json, run.json, config.yaml, metrics.jsonl,
// train.log. A run writes it at its start, after evaluations and saves, and at its end; `colonnade report` makes it again.
//
// A picture has at most a few hundred parts of each curve, so a page has less than 2 MB however long the run.

#include <string>

#include "train/report/report_data.h"
#include "train/report/run_history.h"

namespace colonnade {

class RunReport {
  public:
    /// Throws Exit::data if the folder holds no run.
    explicit RunReport(std::string output_dir);

    /// Reads what is new in the folder. Throws Exit::data, naming file and line.
    ReportData read();
    /// Writes <output_dir>/report.html, which a reader sees whole: it is written aside and renamed. Returns its path.
    /// Throws Exit::data and Exit::storage.
    std::string write();

  private:
    std::string output_dir_;
    ReportFacts facts_;
    std::vector<ConfigEntry> entries_;
    std::string name_, stage_, finetuning_;
    RunHistory history_;
};

}  // namespace colonnade
