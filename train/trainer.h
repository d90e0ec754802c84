#pragma once
// Trainer: the loop. Micro-steps from the loader into the learner, an update per step, and every so many steps a line
// of metrics, an evaluation, a checkpoint. What happens at which step is a pure function of the config and the data, so
// that a run stopped anywhere and resumed gives the same bits as one that was not.

#include <chrono>
#include <memory>
#include <string>

#include "data/loader.h"
#include "engine/files.h"
#include "engine/progress.h"
#include "train/checkpoint.h"
#include "train/learner.h"
#include "train/metrics_log.h"
#include "train/session.h"
#include "train/stop_signal.h"

namespace colonnade {

class Trainer {
  public:
    explicit Trainer(Session session);

    /// Exact steps, samples, tokens and bytes of the run, as text. Allocates nothing, touches no file of the run.
    std::string plan();
    /// Trains, evaluates, saves, exports. SIGTERM and SIGINT save a checkpoint after the current step and return.
    void run();

  private:
    using Clock = std::chrono::steady_clock;

    /// Sums since the last line of metrics.
    struct Window {
        LossSums loss;
        double seconds = 0, tokens = 0, samples = 0;
        int64_t steps = 0;
    };

    LearnerOptions learner_options() const;
    void open_output_dir();
    void start();
    void resume(const std::string& folder);
    void train_step(Loader& loader, LoadedBatch first);
    void after_step(const LoadedBatch& last, const Learner::Update& update, double learning_rate);
    void log_window(const Learner::Update& update, double learning_rate);
    void evaluate();
    void save();
    void finish();
    void show_curves() const;

    Session session_;
    const Config& config_;
    PackSchedule schedule_;
    LrSchedule rates_;
    Context ctx_;
    std::unique_ptr<FolderLock> lock_;
    std::unique_ptr<Learner> learner_;
    std::unique_ptr<MetricsLog> log_;
    std::unique_ptr<Progress> progress_;
    TrainerState state_;
    Window window_, run_;  ///< since the last line, since the process began
    double epoch_ = 0;     ///< passes over the data so far
    double last_eval_loss_ = 0, unigram_loss_ = 0;
    int64_t last_eval_step_ = -1, last_save_step_ = -1;
};

}  // namespace colonnade
