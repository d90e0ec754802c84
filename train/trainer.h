#pragma once
// Trainer: the loop. Micro-steps from the loader into the learner, an update per step, and every so many steps a line
// of metrics, an evaluation, a checkpoint. What happens at which step is a pure function of the config and the data, so
// that a run stopped anywhere and resumed gives the same bits as one that was not.

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "data/loader.h"
#include "engine/files.h"
#include "engine/progress.h"
#include "train/checkpoint.h"
#include "train/learner.h"
#include "train/metrics_log.h"
#include "train/reference.h"
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

    /// A step whose work is enqueued. On a GPU its result is read when the next one is under way.
    struct StepUnderWay {
        int64_t step;  ///< steps done with it
        double epoch;  ///< passes over the data with it
        StepTotals totals;
        double learning_rate;
        Clock::time_point start;
    };

    LearnerOptions learner_options() const;
    void open_output_dir();
    void start();
    void resume(const std::string& folder);
    /// Enqueues a step and completes the one before.
    void train_step(Loader& loader, LoadedBatch first);
    /// Waits for the step under way, if any, and counts it.
    void complete_step();
    void log_window(const StepResult& result, double learning_rate);
    /// Warns where the first loss is not that of a policy that still is the reference.
    void check_first_loss(double loss) const;
    /// What is due when a step is done and nothing is under way: evaluation, a checkpoint.
    bool eval_due(bool epoch_ends) const;
    bool save_due(bool epoch_ends) const;
    void evaluate();
    void save();
    void finish();
    void show_curves() const;

    Session session_;
    const Config& config_;
    PackSchedule schedule_;
    LrSchedule rates_;
    std::shared_ptr<const Objective> objective_;
    References references_;  ///< empty where the objective compares with none
    std::unique_ptr<FolderLock> lock_;
    std::unique_ptr<Gpu> gpu_;  ///< null on the CPU
    std::unique_ptr<Learner> learner_;
    Context ctx_;  ///< the learner's
    std::unique_ptr<MetricsLog> log_;
    std::unique_ptr<Progress> progress_;
    TrainerState state_;
    std::optional<StepUnderWay> under_way_;
    int64_t enqueued_ = 0;  ///< steps done, with the one under way
    Clock::time_point last_completed_{};
    Window window_, run_;  ///< since the last line, since the process began
    double epoch_ = 0;     ///< passes over the data so far
    double unigram_loss_ = 0;
    LossSums last_eval_;
    int64_t last_eval_step_ = -1, last_save_step_ = -1;
};

}  // namespace colonnade
