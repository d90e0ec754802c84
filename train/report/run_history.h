#pragma once
// RunHistory: what the logs of a run say so far: curves, answers, spikes and the best evaluation from metrics.jsonl,
// warnings from train.log. It remembers how far it has read, so that an update reads only what is new. Its memory is
// bounded, however long the run.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "engine/io/json.h"
#include "train/log/log_lines.h"
#include "train/report/report_data.h"
#include "train/step/best_model.h"

namespace colonnade {

class RunHistory {
  public:
    static constexpr size_t most_metrics = 256, most_samples = 20, most_spikes = 50, most_warnings = 50;
    static constexpr size_t most_text_bytes = 4000;  ///< of an answer

    RunHistory(std::string output_dir, const BestRules& rules) : output_dir_(std::move(output_dir)), best_(rules) {}

    /// Reads the lines that were appended since. Throws Exit::data, naming path and line, for a line that is not one of
    /// such a log.
    void read_more();
    void put_into(ReportData& data) const;

  private:
    void add_record(const Json& record, const std::string& where);
    void add_samples(const Json& samples, int64_t step);
    void add_message(std::string_view line);
    Curve* curve(const std::string& metric);

    std::string output_dir_;
    std::optional<LogLines> metrics_log_, train_log_;
    int64_t lines_ = 0;
    std::vector<std::pair<std::string, Curve>> curves_;
    std::map<std::string, size_t> index_;  ///< of curves_
    BestModel best_;
    std::vector<SampleEntry> samples_;
    std::vector<SpikeEntry> spikes_;
    int64_t spike_count_ = 0, step_ = 0;
    std::vector<std::string> warnings_;
    int64_t warning_count_ = 0;
};

}  // namespace colonnade
