#pragma once
// Loader: a thread that prepares the micro-batches of one rank ahead of the trainer. It can start at any step without
// replaying earlier ones. Evaluation uses it with `shuffle = false` and one epoch: every sample once, in fixed order.
//
//     Loader loader(store, PackSchedule(store.lengths(), settings), {.start_step = resumed_at});
//     while (auto micro = loader.next()) ...

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "data/packing/batch.h"
#include "data/packing/pack_schedule.h"
#include "data/store/mismatched_answers.h"
#include "data/store/teacher_file.h"

namespace colonnade {

struct LoaderOptions {
    int64_t start_step = 0;     ///< first global step
    int64_t rank = 0;           ///< this process among the layout's ranks
    int64_t align = 1;          ///< batch lengths are multiples of this
    int64_t prefetch = 2;       ///< micro-batches prepared in advance
    bool document_mask = true;  ///< false: a sample sees the earlier ones of its pack, as one long text
    /// A reference log-probability for every sequence of the store, in order, then for every mismatched answer, which
    /// batches get as Batch::reference; or empty. Must outlive the loader.
    std::span<const double> reference{};
    /// Gives batches Batch::teacher; null: none. Must outlive the loader.
    const TeacherFile* teacher = nullptr;
    /// Delivers LoadedBatch::mismatched; null: none. Must outlive the loader.
    const MismatchedAnswers* mismatched = nullptr;
};

/// One micro-batch of this rank, and its step.
struct LoadedBatch {
    Batch batch{};                   ///< has no samples if only empty packs were left
    std::vector<int64_t> samples{};  ///< indices of its samples in the store, in order
    int64_t step = 0;                ///< global step, 0-based
    int64_t micro = 0;               ///< micro-step within it
    int64_t epoch = 0;               ///< 0-based
    int64_t epoch_step = 0;          ///< step within the epoch, 0-based
    int64_t epoch_steps = 0;         ///< steps in this epoch
    StepTotals step_totals{};        ///< over all ranks and micro-steps
    /// The mismatched answers of this rank in the step, micro-batch by micro-batch; with the first micro-batch of a step.
    std::vector<Batch> mismatched{};
};

/// The samples of a pack as one sample of one sequence, for document_mask false. No first token is learned, so the totals
/// do not change.
Sample one_long_text(const std::vector<Sample>& samples);

class Loader {
  public:
    /// `store` must outlive the loader; `schedule` must be made from its lengths.
    Loader(const TokenStore& store, PackSchedule schedule, LoaderOptions options = {});
    Loader(const Loader&) = delete;
    Loader& operator=(const Loader&) = delete;

    /// Returns the next micro-batch in order of (step, micro); nothing after the last one. An error of the thread is
    /// thrown here, after the batches that it made before.
    std::optional<LoadedBatch> next();
    int64_t total_steps() const { return total_steps_; }

  private:
    void run(const std::stop_token& stop);
    void load_all(const std::stop_token& stop);
    enum class Kind { own, mismatched };
    Batch load(const PackPlan& plan, int64_t first_pack, Kind kind) const;
    /// The mismatched batches of a step.
    std::vector<Batch> load_mismatched(const PackPlan& plan, int64_t epoch_step) const;
    /// The reference of samples, sequence by sequence.
    std::vector<double> reference_of(const std::vector<int64_t>& samples, Kind kind) const;
    /// Waits for room in the queue. False if the loader is being destroyed.
    bool push(LoadedBatch&& batch, const std::stop_token& stop);

    const TokenStore& store_;
    PackSchedule schedule_;  // used only by the thread once it runs
    LoaderOptions options_;
    const StepLayout layout_;
    const int64_t total_steps_;

    std::mutex mutex_;  // guards the next three
    std::deque<LoadedBatch> ready_;
    bool finished_ = false;
    std::exception_ptr error_;
    std::condition_variable_any changed_;
    std::jthread thread_;  // last member: stopped and joined before the others are destroyed
};

}  // namespace colonnade
