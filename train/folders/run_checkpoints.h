#pragma once
// The checkpoints of a run: folders <output_dir>/checkpoint-<step>. What each holds: train/folders/checkpoint.h.

#include <optional>
#include <string>
#include <vector>

#include "train/folders/checkpoint.h"

namespace colonnade {

/// Steps of the checkpoints in `output_dir`, ascending, without temporary, trashed and damaged folders.
std::vector<int64_t> checkpoint_steps(const std::string& output_dir);
std::string checkpoint_folder(const std::string& output_dir, int64_t step);

/// The newest checkpoint of a run folder without a model, because the run is under way or was stopped. Empty for any
/// other path.
std::string checkpoint_for_model(const std::string& path);

struct NewestCheckpoint {
    std::optional<WholeCheckpoint> whole{};  ///< none: the run has no checkpoint
    /// One line for each newer folder that is no whole checkpoint: the file, what is wrong with it, and its new name.
    std::vector<std::string> notices{};
};
/// Verifies the checkpoints of a run, the newest first, and returns the first that is whole. Those that are newer are
/// renamed to checkpoint-<step>.damaged, so that the run can save these steps again. If there are checkpoints and none
/// is whole: throws Exit::data and renames nothing.
NewestCheckpoint newest_checkpoint(const std::string& output_dir);

struct Rotation {
    int64_t keep = 0;  ///< checkpoints; 0: all
    int64_t best = 0;  ///< a step whose checkpoint always stays, as the newest one does; 0: none
    static Rotation of(int64_t keep, const BestRecord& best) { return {keep, best.output_dir.empty() ? best.step : 0}; }
};
/// Removes the oldest checkpoints until no more than rotation.keep, or only those that always stay, are left. Call it
/// after the newest one is committed. Returns what could not be removed and why, as one line; empty if all went well.
std::string rotate_checkpoints(const std::string& output_dir, const Rotation& rotation);

/// What is wrong with a checkpoint, as one line; empty if it is whole.
std::string damage_of(const std::string& folder);

/// Removes files and folders under temporary names, left by processes that died while they saved, rotated, exported or
/// wrote other files of a run. Call it with the lock on `output_dir` held. Returns as rotate_checkpoints().
std::string remove_leftovers(const std::string& output_dir);

}  // namespace colonnade
