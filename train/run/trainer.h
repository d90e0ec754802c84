#pragma once
// Trainer: the training loop. It feeds micro-steps from the loader to the learner, updates the weights once per step,
// and at intervals writes metrics, evaluates and saves a checkpoint. The schedule of all this is a pure function of the
// config and the data, so that a run that was stopped and resumed gives the same bits as an uninterrupted one.
//
// With several ranks (engine/ranks/ranks.h) every rank has a Trainer; all do the same on their own packs. Only rank 0
// writes files and prints. The ranks agree on when to stop, where to resume, and which error ended the run.

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "data/packing/loader.h"
#include "engine/io/files.h"
#include "engine/io/folder_lock.h"
#include "engine/io/progress.h"
#include "train/folders/background_save.h"
#include "train/log/metrics_log.h"
#include "train/run/rank_check.h"
#include "train/run/reference.h"
#include "train/run/run_plan.h"
#include "train/run/run_record.h"
#include "train/run/run_report.h"
#include "train/run/sample_answers.h"
#include "train/run/save_plan.h"
#include "train/run/session.h"
#include "train/run/stop_signal.h"
#include "train/step/best_model.h"
#include "train/step/learner.h"
#include "train/step/spike_watch.h"

namespace colonnade {

class Trainer {
  public:
    explicit Trainer(Session session, const Ranks& ranks = one_rank());
    Trainer(const Trainer&) = delete;  // config_ refers to session_
    Trainer& operator=(const Trainer&) = delete;

    /// The exact numbers of steps, samples, tokens and bytes of the run, as text. Allocates nothing on the device and
    /// touches no file of the run.
    std::string plan(const PlanView& view = {});
    /// Trains, evaluates, saves, exports. After SIGTERM, SIGINT or SIGUSR1 on any rank, it saves a checkpoint at the
    /// end of the current step and returns.
    void run();

  private:
    using Clock = std::chrono::steady_clock;

    /// Sums since the last line of metrics.
    struct Window {
        LossSums loss;
        double seconds = 0, tokens = 0, samples = 0;
        int64_t steps = 0;
    };

    /// A step whose work is enqueued. On a GPU its result is read while the next step runs.
    struct StepUnderWay {
        int64_t step;  ///< steps done, this one included
        double epoch;  ///< passes over the data, this step included
        StepTotals totals;
        double learning_rate;
        Clock::time_point start;
        std::vector<int64_t> samples;  ///< of this rank, in the store
    };

    void train();
    /// Prints to stdout and train.log, on rank 0 only.
    template <typename... Args>
    void say(fmt::format_string<Args...> format, Args&&... args) const {
        if (ranks_.first()) print(fmt::format(format, std::forward<Args>(args)...));
    }
    void print(const std::string& text) const;
    /// `text` goes to train.log, `shown` to stdout.
    void print(const std::string& text, const std::string& shown) const;
    const Objective& objective() const { return learner_->objective(); }
    void log(const std::vector<Metric>& metrics) const;
    /// The signal that any rank received, or 0.
    int stop_signal() const;
    bool weights_check_due() const;
    void check_weights();
    /// Enqueues a step and completes the previous one.
    void train_step(Loader& loader, LoadedBatch first);
    /// Waits for the step under way, if there is one, and counts it.
    void complete_step();
    void log_window(const StepResult& result, double learning_rate);

    // trainer_screen.cpp
    /// What the config sets, notes and plan, as wide as the terminal.
    void show_plan();
    void start_progress();
    /// `steps` of the run are done, a part of one counting as well.
    void advance(double steps);
    /// For a signal that comes while a step is computed, `micro_steps` of which are done since `start`.
    void answer_signals(Clock::time_point start, int64_t micro_steps);
    /// The loss and other figures of a window, for the line of progress and the log line.
    ProgressFields figures(const LossSums& loss, const StepResult& result, double rate, double tokens_per_second) const;
    /// The sums of this rank, with a line of progress.
    LossSums evaluate_own(const PackSchedule& schedule);
    /// Of the last evaluation; `remark` follows the loss.
    void show_evaluation(double seconds, const std::string& remark = {});
    /// Runs `write` beside a line of progress: of about `bytes` that this process writes since it had written `from`.
    void show_writing(const std::string& label, size_t bytes, uint64_t from, const std::function<void()>& write);

    // trainer_start.cpp
    void open_output_dir();
    void start();
    void resume(const WholeCheckpoint& checkpoint);
    /// Says what differs from the checkpoint that is resumed, and returns the changes of the config.
    std::vector<std::string> note_changes_since(const std::string& folder) const;
    /// Throws Exit::memory with the figures and with settings that would fit.
    std::unique_ptr<Learner> make_learner() const;
    /// What checkpoints hold beside the state.
    FurtherFiles further_files() const;
    /// Takes the memory for saves in the background.
    void prepare_saves();

    // trainer_numbers.cpp
    /// Every recompute_check_steps: computes a micro-step of a step twice, and throws Exit::peer if they differ.
    void check_device(const LoadedBatch& batch);
    /// The result of the step under way. Throws Exit::numerics if it is not finite, with what came first and the rows.
    StepResult result_of(const StepUnderWay& step);
    UpdateLimits update_limits(int64_t step) const;
    /// Acts on a spike as loss_spike says; with `stop` it saves and throws Exit::numerics.
    void watch_spikes(const StepUnderWay& step, const StepResult& result);
    /// Places of the rows of a step on all ranks.
    std::vector<std::string> rows_of(const StepUnderWay& step) const;

    /// Warns if the first loss is not that of a policy equal to its reference, or does not fit the data.
    void check_first_loss(const LossSums& sums) const;
    /// `epoch_step` of `epoch_steps` is done, 1-based.
    bool eval_due(int64_t epoch_step, int64_t epoch_steps) const;
    bool save_due(int64_t epoch_step, int64_t epoch_steps) const;
    /// Returns whether the metric is the best so far.
    bool evaluate();
    /// Prints and logs the model's answers to some prompts of the evaluation data.
    void show_answers();
    /// Adds up the sums of all ranks.
    LossSums over_ranks(const LossSums& own) const;
    /// The ranks that write checkpoints: all if the optimizer state is sharded, else rank 0 alone.
    const Ranks& writers() const { return saves_.sharded ? ranks_ : one_rank(); }
    /// Begins a checkpoint; returns when it is written if there is no saver_.
    void save();
    /// Waits until the save under way is committed.
    void await_save();
    void report_save(const std::optional<SavedCheckpoint>& saved);
    /// A line on stderr, above the progress, and in train.log.
    void note(const std::string& line) const;
    /// "step 10/60: loss 2.31, ..."; a terminal shows the fields that its width holds.
    void note(const std::string& head, const ProgressFields& fields) const;
    /// Records that the error in flight ended the run.
    void record_failure();
    void record_end(const RunEnd& end);
    void finish();

    // trainer_end.cpp
    /// The best record of the checkpoint that is resumed.
    void resume_best(const std::string& folder);
    /// Forgets the best checkpoint of a resumed run if it is not whole any more.
    void check_best();
    std::string best_folder() const;
    /// Loads the weights of the best checkpoint, if that is asked for, and says which model is exported.
    void load_best();
    /// The README.md of each exported folder.
    void write_cards() const;
    /// Writes what the report shows of the run before its first step.
    void begin_report();
    /// Writes report.html. A failure is one line, once, and ends no run.
    void update_report();
    void report_trouble(const std::string& cause);

    const Ranks& ranks_;
    Session session_;
    const Config& config_;
    PackSchedule schedule_;
    SavePlan saves_;
    LrSchedule rates_;
    References references_;  ///< empty if the objective uses none
    std::unique_ptr<FolderLock> lock_;
    std::unique_ptr<Gpu> gpu_;                    ///< null on the CPU
    std::unique_ptr<Communicator> communicator_;  ///< null with one rank
    std::unique_ptr<Learner> learner_;
    std::unique_ptr<SampleAnswers> answers_;  ///< on rank 0, if eval_table_size asks for them
    std::unique_ptr<BackgroundSave> saver_;   ///< on writers(), if saves run in the background
    Context ctx_;                             ///< the learner's
    std::unique_ptr<MetricsLog> log_;
    std::unique_ptr<RunRecord> record_;  ///< on rank 0
    std::unique_ptr<RunReport> report_;  ///< on rank 0, until it fails
    std::unique_ptr<Progress> progress_;
    std::optional<StopSignal> stop_;
    size_t save_bytes_ = 0;             ///< of the checkpoint that is or was saved
    uint64_t written_before_save_ = 0;  ///< bytes that this process had written
    double advanced_ = 0;               ///< steps that progress_ shows
    double step_seconds_ = 0;           ///< of the last step
    std::string last_checkpoint_{};     ///< committed or resumed from
    TrainerState state_;
    SpikeWatch spikes_;
    BestModel best_;
    std::vector<std::string> changes_;  ///< of the config, since the checkpoint that was resumed
    std::optional<StepUnderWay> under_way_;
    int64_t enqueued_ = 0;       ///< steps done, the one under way included
    int64_t exported_step_ = 0;  ///< of the model that the run ends with
    Clock::time_point last_completed_{};
    Window window_, run_;  ///< since the last log line; since the process began
    double epoch_ = 0;     ///< passes over the data so far
    double unigram_loss_ = 0;
    std::string plan_;  ///< on rank 0: the whole plan, as text
    LossSums last_eval_;
    bool told_of_old_checkpoint_ = false;
    int64_t last_eval_step_ = -1, last_save_step_ = -1, last_agreed_step_ = -1;
};

}  // namespace colonnade
