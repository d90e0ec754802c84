#pragma once
// The log of a run: <output_dir>/metrics.jsonl and TensorBoard event files in <output_dir>/runs, fed with the same
// records.
//
// metrics.jsonl holds one JSON object per line, named as Hugging Face's log_history names things:
//
//     {"step": 10, "epoch": 0.25, "loss": 2.31, "learning_rate": 2e-05, "grad_norm": 1.2, "tokens_per_second": 5123.4}
//     {"step": 10, "epoch": 0.25, "eval_loss": 2.28}
//
// JSON has no NaN and no infinity: such a value is null, and the object says which it was under "non_finite"
// ({"loss": "nan"}). In TensorBoard eval_* becomes eval/*, everything else train/*.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "train/config/config.h"
#include "train/log/append_file.h"
#include "train/log/curve_picture.h"
#include "train/log/tensorboard.h"
#include "train/objectives/metric.h"

namespace colonnade {

class MetricsLog {
  public:
    /// Without `resumed_step` a new log begins and an old metrics.jsonl is replaced; with it the log goes on and lines
    /// about later steps are cut away, so that every step is told once. Throws Exit::storage.
    MetricsLog(const std::string& output_dir, const std::set<Report>& report_to,
               std::optional<int64_t> resumed_step = {});

    /// One line, on its way to the disk when the call returns.
    void write(int64_t step, double epoch, const std::vector<Metric>& metrics);

  private:
    std::optional<AppendFile> jsonl_;
    std::optional<EventWriter> tensorboard_;
};

/// The line (without line break) that write() adds.
std::string metrics_line(int64_t step, double epoch, const std::vector<Metric>& metrics);

/// The part of a log up to `step`: its longest beginning of whole lines about steps no later than that.
std::string_view log_until(std::string_view jsonl, int64_t step);

/// The values of one key over the steps; lines without it, or with null, are passed over. Throws Exit::data naming
/// path and line.
Series read_series(const std::string& metrics_path, const std::string& key);

}  // namespace colonnade
