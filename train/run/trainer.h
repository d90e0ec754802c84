#pragma once
// Trainer: the loop. Micro-steps from the loader into the learner, an update per step, and every so many steps a line
// of metrics, an evaluation, a checkpoint. What happens at which step is a pure function of the config and the data, so
// that a run stopped anywhere and resumed gives the same bits as one that was not.
//
// With several ranks (engine/ranks/ranks.h) every rank has a Trainer and all do the same, each with its own packs. Rank 0 alone
// writes files and speaks. Whether to stop, where to resume and what failed they agree on.

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "data/loader.h"
#include "engine/io/folder_lock.h"
#include "engine/io/progress.h"
#include "train/folders/checkpoint.h"
#include "train/log/metrics_log.h"
#include "train/run/rank_check.h"
#include "train/run/reference.h"
#include "train/run/session.h"
#include "train/run/stop_signal.h"
#include "train/step/learner.h"

namespace colonnade {

class Trainer {
  public:
    explicit Trainer(Session session, const Ranks& ranks = one_rank());

    /// Exact steps, samples, tokens and bytes of the run, as text. Allocates nothing, touches no file of the run.
    std::string plan();
    /// Trains, evaluates, saves, exports. SIGTERM, SIGINT and SIGUSR1, on whichever rank, save a checkpoint after the current
    /// step and return.
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

    void train();
    /// To stdout, from rank 0.
    template <typename... Args>
    void say(fmt::format_string<Args...> format, Args&&... args) const {
        if (ranks_.first()) fmt::print(format, std::forward<Args>(args)...);
    }
    const Objective& objective() const { return learner_->objective(); }
    void log(const std::vector<Metric>& metrics) const;
    /// The signal that any rank got, else 0.
    int stop_signal(const StopSignal& stop) const;
    void note_changes_since(const std::string& folder) const;
    bool weights_check_due() const;
    void check_weights();
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
    /// Of all ranks together.
    LossSums over_ranks(const LossSums& own) const;
    void save();
    void finish();
    void show_curves() const;

    const Ranks& ranks_;
    Session session_;
    const Config& config_;
    PackSchedule schedule_;
    LrSchedule rates_;
    References references_;  ///< empty where the objective compares with none
    std::unique_ptr<FolderLock> lock_;
    std::unique_ptr<Gpu> gpu_;                    ///< null on the CPU
    std::unique_ptr<Communicator> communicator_;  ///< null with one rank
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
    int64_t last_eval_step_ = -1, last_save_step_ = -1, last_agreed_step_ = -1;
};

}  // namespace colonnade
