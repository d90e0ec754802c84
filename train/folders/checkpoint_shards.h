#pragma once
// The files of a checkpoint that hold weights and AdamW moments: one per rank that wrote.
//
//     state-00002-of-00003.h5   weights, adamw/m, adamw/v    [elements of the share] f32
//                               8-bit moments: adamw/m and adamw/v in u8, and adamw/m_units, adamw/v_units
//                                                            [elements / 64] f32
//                               slices                        [k, 2] i64: which elements of the flat buffers they are
//                               attribute updates             steps of AdamW
//
// The slices of all files together are the flat buffers, each element once, so that any number of ranks can read what
// any number of ranks wrote. Files of version 3 and older hold everything and name no slices.

#include <functional>
#include <string>
#include <vector>

#include "engine/io/file_pieces.h"
#include "train/step/learner.h"

namespace colonnade {

/// A rank's share of weights and optimizer state (GradientSync::state(); without sharding, all), and the number of updates.
/// A file is written a piece of an array at a time, so that they need not be in host memory together. bf16 moments are
/// stored as f32.
struct LearnerState {
    Gpu* gpu = nullptr;                  ///< that has numbers of the arrays; null: all are in host memory
    std::vector<StateArray> arrays;      ///< Learner::master_weights(), then optimizer_state()
    std::function<HostCopy()> adapters;  ///< LoRA: the weights of all ranks, used on rank 0; otherwise empty
    int64_t updates = 0;
};
/// The state of the learner now, read from it when it is written. If it is sharded, all ranks call this.
LearnerState present_state(const Learner& learner);
/// LoRA with sharded state: a copy of all adapters, on rank 0. All ranks call it.
std::function<HostCopy()> collected_adapters(const Learner& learner);
/// Learner::master_weights(), then optimizer_state().
std::vector<StateArray> arrays_of(const Learner& learner);

/// "state-00002-of-00003.h5" for rank 1 of 3
std::string shard_name(int rank, int ranks);
bool is_shard_name(const std::string& name);

/// Writes this rank's file into `folder` by `threads` threads, and fsyncs it. Returns its pieces.
std::vector<FilePiece> write_shard(const std::string& folder, const Learner& learner, const LearnerState& saved,
                                   int threads);

/// Fills weights, moments and update count of a learner from the files `names` of `folder`. Throws Exit::data naming the
/// file, what was found and what was expected.
void read_shards(const std::string& folder, const std::vector<std::string>& names, Learner& learner);

}  // namespace colonnade
