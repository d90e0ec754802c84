#pragma once
// Checkpoints: folders <output_dir>/checkpoint-<step>, each whole or absent.
//
//     state-00001-of-00001.h5   flat weights and AdamW moments, whole: any number of ranks reads them; with LoRA those of
//                               the adapters alone: the base is known by its hash
//     trainer_state.json        step, counters, what the run was made of, where each parameter lies in the flat buffers
//     config.yaml               the resolved training config
//     adapter_*                 LoRA: the adapters as PEFT reads them (train/folders/adapter_folder.h)
//     model_config.json         the model's shape, as a Hugging Face config.json
//     manifest.json             size and SHA-256 of every file above, and of itself
//
// Written into a temporary folder, hashed, fsynced, renamed (engine/io/files.h); a kill at any moment leaves the one
// before. Read in the order manifest, sizes, hashes, and only then HDF5, so that damage is found before anything parses
// it.

#include <string>
#include <vector>

#include "train/step/learner.h"

namespace colonnade {

struct TrainerState {
    int64_t step = 0;         ///< optimizer steps done
    int64_t tokens_seen = 0;  ///< real tokens, padding apart
    int64_t samples_seen = 0;
    LossSums since_log;           ///< of the steps that no line of the log tells of yet
    std::string data_key;         ///< key of the token store: other data would make another run
    std::string reference_key{};  ///< of the reference's log-probabilities, where the loss compares with one
    int64_t ranks = 1;            ///< that trained
    int64_t packs_per_step = 0;   ///< of all ranks and micro-steps; 0: not known (older checkpoints)
    std::string config_yaml;      ///< resolved
    /// LoRA: the base's folder, as adapter_config.json is to name it.
    std::string base_model{};
};

/// Throws Exit::storage; nothing is left under `folder` then. With several ranks, rank 0 saves and the others call
/// contribute_to_checkpoint() meanwhile.
void save_checkpoint(const std::string& folder, const Learner& learner, const TrainerState& state);

/// Gives rank 0 what it keeps of the optimizer state, where that is sharded.
void contribute_to_checkpoint(const Learner& learner);

/// Verifies, then fills the learner's weights, moments and update count. Throws Exit::data naming the file, what was
/// found and what was expected; so it does where the adapters have another rank, scale, targets or base than the
/// learner's.
TrainerState load_checkpoint(const std::string& folder, Learner& learner);

/// The model of a checkpoint, for export: verifies first.
ModelConfig checkpoint_model(const std::string& folder);

/// Steps of the checkpoints in `output_dir`, ascending; temporary and trashed folders are not among them.
std::vector<int64_t> checkpoint_steps(const std::string& output_dir);
std::string checkpoint_folder(const std::string& output_dir, int64_t step);

/// Removes the oldest until `keep` are left (0: keeps all). Call it after the newest one is committed.
void rotate_checkpoints(const std::string& output_dir, int64_t keep);

/// Removes what processes left that died while they saved, rotated or wrote the log and config of a run: files and
/// folders under temporary names. Call it with the lock on `output_dir` held.
void remove_leftovers(const std::string& output_dir);

}  // namespace colonnade
