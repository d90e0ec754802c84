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

struct NewestCheckpoint {
    std::optional<WholeCheckpoint> whole{};  ///< none: the run has no checkpoint
    /// One line for each newer folder that is no whole checkpoint: the file, what is wrong with it, and its new name.
    std::vector<std::string> notices{};
};
/// Verifies the checkpoints of a run, the newest first, and returns the first that is whole. Those that are newer are
/// renamed to checkpoint-<step>.damaged, so that the run can save these steps again. If there are checkpoints and none
/// is whole: throws Exit::data and renames nothing.
NewestCheckpoint newest_checkpoint(const std::string& output_dir);

/// Removes the oldest checkpoints until `keep` are left (0: keeps all). Call it after the newest one is committed.
/// Returns what could not be removed and why, as one line; empty if all went well.
std::string rotate_checkpoints(const std::string& output_dir, int64_t keep);

/// Removes files and folders under temporary names, left by processes that died while they saved, rotated, exported or
/// wrote the log and config of a run. Call it with the lock on `output_dir` held. Returns as rotate_checkpoints().
std::string remove_leftovers(const std::string& output_dir);

}  // namespace colonnade
