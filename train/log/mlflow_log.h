#pragma once
// MlflowLog: a run on an MLflow server, by its REST interface (api/2.0/mlflow, as MLflow 3 has it):
//
//     experiments/get-by-name, experiments/create     the experiment: `project`
//     runs/create, runs/update                        the run: `run_name`, its state, its end
//     runs/log-batch                                  config keys as params; metrics, up to 1000 at once
//
// A thread sends; training waits for nothing. If the server refuses or is away after a few tries, what waits is
// dropped, and the log says so once. Values that are not finite are left out: metrics.jsonl has them.
//
// The server is that of MLFLOW_TRACKING_URI, with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
// MLFLOW_TRACKING_PASSWORD.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/hub/hub_settings.h"
#include "train/log/run_description.h"

namespace colonnade {

struct MlflowSettings {
    HubSettings server{};         ///< address, token, waits
    std::string user{};           ///< "name:password"
    double closing_seconds = 15;  ///< that the end of a run waits for what is not sent yet
};
/// Throws Exit::config if MLFLOW_TRACKING_URI is missing or not the address of a server.
MlflowSettings mlflow_settings();

class MlflowLog {
  public:
    static constexpr size_t most_waiting = 20000;  ///< metrics

    /// `output_dir` remembers the run's id in mlflow/run-id.txt: a resumed run continues it.
    MlflowLog(const std::string& output_dir, RunDescription run, std::optional<int64_t> resumed_step,
              MlflowSettings settings = mlflow_settings());
    MlflowLog(MlflowLog&&) = delete;
    /// Sends what waits, and how the run ended: FAILED if an error is in flight. A failure is one line on stderr.
    ~MlflowLog();

    /// Never throws for what the server does.
    void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
    /// What went wrong, once; else empty.
    std::string take_trouble();

  private:
    struct Metric {
        std::string key;
        double value;
        int64_t timestamp, step;  ///< milliseconds since 1970
    };
    class Sender;
    void work();
    void give_up(const std::string& cause);
    bool late();                ///< the end of the run has waited long enough
    bool wait(double seconds);  ///< false if the end of the run does not wait so long

    const std::string folder_;
    const RunDescription run_;
    const std::optional<int64_t> resumed_step_;
    const MlflowSettings settings_;

    std::mutex mutex_;  // guards the next
    std::condition_variable changed_;
    std::deque<Metric> waiting_;
    std::string trouble_;
    bool given_up_ = false, ending_ = false, failed_ = false;
    double deadline_ = 0;  ///< seconds since 1970; 0: none
    std::thread thread_;   // last: it uses the others
};

}  // namespace colonnade
