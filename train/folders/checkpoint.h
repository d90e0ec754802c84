#pragma once
// Checkpoints: folders <output_dir>/checkpoint-<step>, each whole or absent.
//
//     state-0000R-of-0000N.h5   flat weights and AdamW moments (train/folders/checkpoint_shards.h): one file, or with
//                               sharded optimizer state one of each rank. With LoRA those of the adapters alone, while a
//                               hash identifies the base
//     trainer_state.json        step, counters, identity of data and reference, what computed it, places of parameters
//                               in the flat buffers
//     config.yaml               the resolved training config
//     adapter_*                 LoRA: the adapters as PEFT reads them (train/folders/adapter_folder.h)
//     model_config.json         the model's shape, as a Hugging Face config.json
//     config.json, ...          if the run asks for it (export_checkpoints): what transformers needs to load the folder
//     manifest.json             size and SHA-256 of the pieces of every file above, and of itself
//
// A checkpoint is written into a temporary folder, hashed, fsynced and renamed (engine/io/files.h), so that a kill at
// any moment leaves the previous one. Reading checks manifest, sizes and hashes before it opens an HDF5 file, so that
// damage is found before anything parses it. Several threads write, hash and read (engine/io/file_pieces.h).
//
// The manifest's version is 4. Version 3, with one state file, and 2, also with one hash per file, are read too.

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/io/files.h"
#include "engine/ranks/ranks.h"
#include "train/folders/checkpoint_shards.h"
#include "train/step/best_model.h"
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
    BestRecord best{};                  ///< of the evaluations up to this step
    /// What computed it, on which the last bits may depend: name and value (train/run/machine.h). Empty: not known.
    std::vector<std::pair<std::string, std::string>> made_by{};
    std::string config_yaml;  ///< resolved
    /// LoRA: the folder of the base, as adapter_config.json names it.
    std::string base_model{};
};

// --- Saving ---

/// Writes further files into a checkpoint's folder, on rank 0. `weights`: all of Learner::weights() in host memory;
/// empty if the learner's optimizer state is sharded.
using FurtherFiles = std::function<void(const std::string& folder, const Tensor& weights)>;

/// A checkpoint that is being written, by rank 0 alone (one_rank()) or, if the learner's optimizer state is sharded, by
/// all ranks: each writes its share, rank 0 the rest. The calls, in this order, from all of these ranks:
///
///     constructor   rank 0 makes the temporary folder and tells the others its name        collective
///     write()       writes this rank's share; the learner may train on meanwhile
///     gather()      tells rank 0 what was written, after write() has succeeded everywhere  collective
///     commit()      rank 0 alone: writes the other files and makes the checkpoint exist
///
/// Collective calls belong to the main thread; the others may run in any. If destroyed without commit(), nothing is left
/// under the folder's name, and no rank may still be in write(). Errors of the disk throw Exit::storage.
class CheckpointSave {
  public:
    CheckpointSave(std::string folder, const Learner& learner, TrainerState state, const Ranks& ranks,
                   FurtherFiles further = {});
    void write(const LearnerState& saved);
    void gather();
    uint64_t commit();  ///< returns the bytes of all files

  private:
    struct File {
        std::string name;
        std::vector<FilePiece> pieces;
    };
    void write_manifest(const std::string& dir);

    const Learner& learner_;
    TrainerState state_;
    const Ranks& ranks_;
    std::unique_ptr<FolderCommit> commit_;  ///< rank 0
    std::string folder_;                    ///< temporary
    std::vector<FilePiece> pieces_;         ///< of this rank's file
    FurtherFiles further_;
    std::function<HostCopy()> weights_, adapters_;
    std::vector<File> shards_;  ///< rank 0: of all ranks
    uint64_t bytes_ = 0;
};

/// Saves the learner's present state, and returns the bytes of all files on rank 0. `ranks`: those that write, as above.
uint64_t save_checkpoint(const std::string& folder, const Learner& learner, const TrainerState& state,
                         const Ranks& ranks = one_rank(), const FurtherFiles& further = {});

// --- Loading ---

/// Ends the message of an error that means damage.
inline constexpr const char* damage_advice =
    "the checkpoint is damaged: resume from another (resume_from_checkpoint: auto takes the newest whole one)";

/// A checkpoint that was verified.
struct WholeCheckpoint {
    std::string folder;
    std::vector<std::string> shards{};  ///< names of the state files
};
/// Verifies sizes and hashes of all files. Throws Exit::data naming the file, what was found and what was expected, and
/// Exit::config if a newer program wrote it.
WholeCheckpoint check_checkpoint(const std::string& folder);

/// Fills the learner's weights, moments and update count. Throws Exit::data as above, also if the adapters differ from
/// the learner's in rank, scale, targets or base.
TrainerState load_checkpoint(const WholeCheckpoint& checkpoint, Learner& learner);
/// Verifies it first.
TrainerState load_checkpoint(const std::string& folder, Learner& learner);

/// The model of a checkpoint, for export.
ModelConfig checkpoint_model(const WholeCheckpoint& checkpoint);

}  // namespace colonnade
