#pragma once
// Lists of a teacher for data of texts (docs/distillation.md): one forward pass of the teacher over the data, whose lists
// are written as rows of token ids (data/rows/files/hdf5_rows.h), which stage distill reads.

#include "train/run/session.h"

namespace colonnade {

struct TeachOptions {
    std::string output;      ///< an HDF5 file, replaced when it is complete
    int64_t top = 64;        ///< tokens of each list
    double temperature = 1;  ///< logits are divided by it
};

/// What was written.
struct Taught {
    int64_t rows = 0, tokens = 0, lists = 0;
    double probability = 0;  ///< of the tokens of a list together, on average
    double seconds = 0;
};

/// The session is one of texts (stage sft or pt), of which the model is the teacher. Only its weights are in memory, in the
/// dtype that the device computes in, and the activations of a batch. Writes rows of the training data in the order of
/// packs, one for each sequence; tokens that are not learned have no list.
Taught teach(Session session, const TeachOptions& options);

}  // namespace colonnade
