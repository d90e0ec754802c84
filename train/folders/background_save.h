#pragma once
// BackgroundSave: checkpoints that are written while training goes on.
//
//     begin()   copies this rank's weights and moments to host memory that it keeps for this purpose, and starts a thread
//               that writes, hashes and fsyncs the copy, commits it, and then deletes older checkpoints
//     hold()    before every update of the weights: on a GPU the copy runs beside the next forward and backward pass
//     poll()    between steps: tells once when a checkpoint is committed
//     wait()    before the next begin() and at the end of the run: at most one save is under way
//
// If the optimizer state is sharded over ranks, every rank has a BackgroundSave, and all ranks call begin(), poll() and
// wait() at the same places. Threads never talk to other ranks: between steps poll() compares whether all of them have
// written, and then the thread of rank 0 commits. Without sharding rank 0 saves alone (one_rank()).
//
// An error of a thread is thrown by poll() or wait(), on all ranks that save; then the folder does not exist
// (train/folders/checkpoint.h).

#include <atomic>
#include <chrono>
#include <exception>
#include <optional>
#include <thread>

#include "engine/device/arena.h"
#include "train/folders/run_checkpoints.h"

namespace colonnade {

struct SavedCheckpoint {
    std::string folder;
    uint64_t bytes = 0;
    double seconds = 0;     ///< from begin() to the commit
    std::string trouble{};  ///< what rotate_checkpoints() returned
};

class BackgroundSave {
  public:
    /// Takes the memory of the copy, pinned if the learner is on a GPU. Throws Exit::memory with the figures. The
    /// learner must outlive this object, as must `ranks`: those that save.
    explicit BackgroundSave(const Learner& learner, const Ranks& ranks = one_rank(), FurtherFiles further = {});
    /// Waits for the save under way and prints how it ended, because nobody asks any more.
    ~BackgroundSave();
    BackgroundSave(const BackgroundSave&) = delete;
    BackgroundSave& operator=(const BackgroundSave&) = delete;

    /// No save may be under way. Afterwards keeps `keep` checkpoints beside `folder` (0: all), as
    /// rotate_checkpoints() does; state.best is the one that always stays.
    void begin(const std::string& folder, const TrainerState& state, int64_t keep);
    void hold();
    /// The checkpoint that was committed since the last call, if any; on rank 0 only.
    std::optional<SavedCheckpoint> poll();
    std::optional<SavedCheckpoint> wait();
    bool under_way() const { return save_ != nullptr; }

  private:
    /// The state of the learner now, in host memory that nothing else changes.
    LearnerState copy_state();
    void start_thread(std::function<void()> work);
    /// Waits until all ranks have written, and lets rank 0 commit.
    void end_shares();
    void commit();

    const Learner& learner_;
    const Ranks& ranks_;
    FurtherFiles further_;  ///< of every checkpoint; called by a thread
    Arena memory_;
    std::unique_ptr<SideCopy> side_;  ///< GPU
    SavedCheckpoint saved_;
    Rotation rotation_;
    std::unique_ptr<CheckpointSave> save_;  ///< under way
    bool shares_under_way_ = false;         ///< of several ranks; the same on all
    std::chrono::steady_clock::time_point began_;
    std::exception_ptr error_;
    std::atomic<bool> done_ = false;
    std::thread thread_;
};

}  // namespace colonnade
