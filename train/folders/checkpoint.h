#pragma once
// Checkpoints: folders <output_dir>/checkpoint-<step>, each whole or absent.
//
//     state-00001-of-00001.h5   flat weights and AdamW moments, unsharded: any number of ranks can read them; with LoRA
//                               those of the adapters alone, while a hash identifies the base
//     trainer_state.json        step, counters, identity of data and reference, places of parameters in the flat
//                               buffers
//     config.yaml               the resolved training config
//     adapter_*                 LoRA: the adapters as PEFT reads them (train/folders/adapter_folder.h)
//     model_config.json         the model's shape, as a Hugging Face config.json
//     manifest.json             size and SHA-256 of the pieces of every file above, and of itself
//
// A checkpoint is written into a temporary folder, hashed, fsynced and renamed (engine/io/files.h), so that a kill at
// any moment leaves the previous one. Reading checks manifest, sizes and hashes before it opens the HDF5 file, so that
// damage is found before anything parses it. Several threads write, hash and read (engine/io/file_pieces.h).
//
// The manifest's version is 3. Version 2, with one hash per file, is read too.

#include <functional>
#include <string>
#include <vector>

#include "train/step/learner.h"
#include "train/step/spike_watch.h"

namespace colonnade {

struct TrainerState {
    int64_t step = 0;         ///< optimizer steps done
    int64_t tokens_seen = 0;  ///< real tokens, without padding
    int64_t samples_seen = 0;
    LossSums since_log;                 ///< sums of the steps that are not in the log yet
    std::string data_key;               ///< key of the token store; a run resumes only with the same data
    std::string reference_key{};        ///< key of the reference's log-probabilities, if the loss uses a reference
    int64_t ranks = 1;                  ///< number of ranks that trained
    int64_t packs_per_step = 0;         ///< over all ranks and micro-steps; 0: not known (older checkpoints)
    int64_t skipped_steps = 0;          ///< steps whose update was left out (loss_spike: skip)
    std::vector<StepNumbers> recent{};  ///< SpikeWatch::recent()
    std::string config_yaml;            ///< resolved
    /// LoRA: the folder of the base, as adapter_config.json names it.
    std::string base_model{};
};

/// Weights, moments and number of updates of a learner. The functions are called in this order, and each result is gone
/// before the next call, so that large arrays need not be in host memory together. bf16 moments are stored as f32.
struct LearnerState {
    std::function<HostCopy()> weights, m, v;
    int64_t updates = 0;
};

/// Writes a checkpoint of `saved`; returns its bytes. Throws Exit::storage and then leaves nothing under `folder`. It
/// reads nothing of the learner that changes in training, so that the learner may go on meanwhile.
uint64_t write_checkpoint(const std::string& folder, const Learner& learner, const LearnerState& saved,
                          const TrainerState& state);

/// The same for the learner's present state. With several ranks, rank 0 saves while the others call
/// contribute_to_checkpoint().
uint64_t save_checkpoint(const std::string& folder, const Learner& learner, const TrainerState& state);

/// Sends this rank's share of a sharded optimizer state to rank 0.
void contribute_to_checkpoint(const Learner& learner);

/// Verifies the checkpoint, then fills the learner's weights, moments and update count. Throws Exit::data naming the
/// file, what was found and what was expected, also if the adapters differ from the learner's in rank, scale, targets
/// or base.
TrainerState load_checkpoint(const std::string& folder, Learner& learner);

/// The model of a checkpoint, for export. Verifies the checkpoint first.
ModelConfig checkpoint_model(const std::string& folder);

/// Steps of the checkpoints in `output_dir`, ascending, without temporary and trashed folders.
std::vector<int64_t> checkpoint_steps(const std::string& output_dir);
std::string checkpoint_folder(const std::string& output_dir, int64_t step);

/// Removes the oldest checkpoints until `keep` are left (0: keeps all). Call it after the newest one is committed.
void rotate_checkpoints(const std::string& output_dir, int64_t keep);

/// Removes files and folders under temporary names, left by processes that died while they saved, rotated, exported or
/// wrote the log and config of a run. Call it with the lock on `output_dir` held.
void remove_leftovers(const std::string& output_dir);

}  // namespace colonnade
