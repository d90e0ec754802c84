#pragma once
// TrackioLog: a run in the inbox of Trackio (https://github.com/gradio-app/trackio), as trackio 0.43 writes it. Its
// dashboard, `trackio show`, imports the files and deletes them.
//
//     $TRACKIO_DIR/inbox/<writer>/00000000.jsonl        TRACKIO_DIR: $HF_HOME/trackio; HF_HOME: ~/.cache/huggingface
//
//     {"v":1,"kind":"metric","project":"...","run":"...","run_id":"...","metrics":{"train/loss":2.31},"step":10,
//      "timestamp":"2026-11-30T03:12:39.000000+00:00","config":{...},"log_id":"..."}
//
// A file is complete when it has its name. Records wait for a few seconds, so that a long run does not leave a file for
// each: a process that is killed loses these. A resumed run keeps its id; what the killed one logged about later steps
// stays in Trackio.

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/log/run_description.h"

namespace colonnade {

class TrackioLog {
  public:
    /// Makes the folder of this writer. Throws Exit::storage.
    TrackioLog(const std::string& output_dir, const RunDescription& run, std::optional<int64_t> resumed_step = {});
    TrackioLog(TrackioLog&&) = delete;
    /// Writes what waits. A failure is one line on stderr.
    ~TrackioLog();

    /// Throws Exit::storage if the records that wait cannot be written.
    void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

  private:
    void flush();

    std::string project_, name_, id_, writer_, folder_;
    std::string config_;   ///< JSON, for the first record
    std::string waiting_;  ///< lines
    int64_t files_ = 0, records_ = 0;
    std::chrono::steady_clock::time_point flushed_{};
};

/// TRACKIO_DIR, or the folder that Trackio takes without it.
std::string trackio_folder();

}  // namespace colonnade
