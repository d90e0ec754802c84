#pragma once
// MetricsLog: the log of a run as <output_dir>/metrics.jsonl, as metrics.csv, as TensorBoard event files in
// <output_dir>/runs, as a run of W&B in <output_dir>/wandb, in Trackio's inbox and on an MLflow server. All contain the
// same records, the last two numbers only. A tracker that fails ends no run: take_trouble() says so once.
//
// metrics.jsonl has one JSON object per line, with the names of Hugging Face's log_history:
//
//     {"step": 10, "epoch": 0.25, "loss": 2.31, "learning_rate": 2e-05, "grad_norm": 1.2, "tokens_per_second": 5123.4}
//     {"step": 10, "epoch": 0.25, "eval_loss": 2.28}
//     {"step": 11, "epoch": 0.27, "spike_loss": 9.7, "spike_grad_norm": 41.0, "skipped_steps": 1, "rows": ["a.jsonl:7"]}
//
//     {"step": 10, "epoch": 0.25, "samples": [{"row": "a.jsonl:7", "prompt": "...", "answer": "...", "reference": "..."}]}
//
// "rows" is in metrics.jsonl only, samples are not in metrics.csv. metrics.csv has a column for each name; the cells of a record that lacks it are empty.
//
// JSON has no NaN and no infinity: such a value is null, and "non_finite" names it ({"loss": "nan"}). In TensorBoard
// eval_* becomes eval/*, everything else train/*.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/log/append_file.h"
#include "train/log/csv_log.h"
#include "train/log/curve_text.h"
#include "train/log/mlflow_log.h"
#include "train/log/run_description.h"
#include "train/log/tensorboard.h"
#include "train/log/trackio_log.h"
#include "train/log/wandb_log.h"
#include "train/objectives/metric.h"

namespace colonnade {

/// The files that a log writes.
struct LogFiles {
    bool jsonl = false, tensorboard = false, csv = false, wandb = false, trackio = false, mlflow = false;
};

/// The answer of a model in training to a prompt that it was not trained on.
struct SampleAnswer {
    std::string row;  ///< place of the sample
    std::string prompt, answer, reference;
};

class MetricsLog {
  public:
    /// Without `resumed_step` a new log replaces an old metrics.jsonl. With it the old log continues after lines about
    /// later steps are removed, so that every step appears once. Throws Exit::storage.
    MetricsLog(const std::string& output_dir, LogFiles files, std::optional<int64_t> resumed_step = {},
               const RunDescription& run = {});

    /// Writes one record; the system has it when the call returns.
    void write(int64_t step, double epoch, const std::vector<Metric>& metrics,
               const std::vector<std::string>& rows = {});
    /// What went wrong with a tracker since the last call; else empty.
    std::string take_trouble();
    /// Writes answers, as text where the log has texts: "samples" in metrics.jsonl, "eval/samples" elsewhere.
    void write_samples(int64_t step, double epoch, const std::vector<SampleAnswer>& samples);

  private:
    std::optional<AppendFile> jsonl_;
    std::optional<EventWriter> tensorboard_;
    std::optional<CsvLog> csv_;
    std::optional<WandbLog> wandb_;
    std::optional<TrackioLog> trackio_;
    std::optional<MlflowLog> mlflow_;
    std::string trouble_;
};

/// The line (without line break) that write() appends.
std::string metrics_line(int64_t step, double epoch, const std::vector<Metric>& metrics,
                         const std::vector<std::string>& rows = {});

/// Bytes of the part of a log up to `step`: the longest prefix of complete lines about steps no later than `step`.
uint64_t log_bytes_until(const std::string& path, int64_t step);

/// The values of one key over the steps. Lines without the key, or with null, are skipped; of more
/// than 131,072 values every second, fourth and so on is left out. Throws Exit::data naming path and line.
Series read_series(const std::string& metrics_path, const std::string& key);

}  // namespace colonnade
