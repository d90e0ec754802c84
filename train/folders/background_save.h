#pragma once
// BackgroundSave: checkpoints that are written while training goes on.
//
//     begin()   copies weights and moments to host memory that it keeps for this purpose, and starts a thread that
//               writes, hashes, fsyncs and commits the copy, and then deletes older checkpoints
//     hold()    before every update of the weights: on a GPU the copy runs beside the next forward and backward pass
//     poll()    between steps: tells once when a checkpoint is committed
//     wait()    before the next begin() and at the end of the run: at most one save is under way
//
// An error of the thread is thrown by poll() or wait(); then the folder does not exist (train/folders/checkpoint.h).

#include <atomic>
#include <chrono>
#include <exception>
#include <optional>
#include <thread>

#include "engine/device/arena.h"
#include "train/folders/checkpoint.h"

namespace colonnade {

/// Bytes of host memory that the copy takes on rank 0.
size_t state_copy_bytes(const ModelConfig& config, const LearnerOptions& options, Device device);

struct SavedCheckpoint {
    std::string folder;
    uint64_t bytes = 0;
    double seconds = 0;  ///< from begin() to the commit
};

class BackgroundSave {
  public:
    /// Takes the memory of the copy, pinned if the learner is on a GPU. Throws Exit::memory with the figures. The
    /// learner must outlive this object.
    explicit BackgroundSave(const Learner& learner);
    /// Waits for the save under way and prints how it ended, because nobody asks any more.
    ~BackgroundSave();
    BackgroundSave(const BackgroundSave&) = delete;
    BackgroundSave& operator=(const BackgroundSave&) = delete;

    /// No save may be under way. Keeps the newest `keep` checkpoints beside `folder` (0: all). With several ranks the
    /// others call contribute_to_checkpoint(): sharded state is collected before this returns.
    void begin(const std::string& folder, const TrainerState& state, int64_t keep);
    void hold();
    /// The checkpoint that was committed since the last call, if any.
    std::optional<SavedCheckpoint> poll();
    std::optional<SavedCheckpoint> wait();

  private:
    /// The state of the learner now, in host memory that nothing else changes.
    LearnerState copy_state();
    void write(const LearnerState& saved, const TrainerState& state, int64_t keep);

    const Learner& learner_;
    Arena memory_;
    std::unique_ptr<SideCopy> side_;  ///< GPU
    SavedCheckpoint saved_;
    std::chrono::steady_clock::time_point began_;
    std::exception_ptr error_;
    std::atomic<bool> done_ = false;
    std::thread thread_;
};

}  // namespace colonnade
