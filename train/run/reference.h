#pragma once
// The reference of preference training: the log-probability of every answer in a data set under a frozen model. One
// forward pass over the data computes it before training. It is kept per sample and branch, so that packs may change,
// and is cached as <prepared_path>/reference-<split>-<first 16 hex digits of the key>.h5:
//
//     logps       f64 [branches]   of the store's samples, in order; then, if there are any, of the mismatched answers
//                                  (data/store/mismatched_answers.h) of all samples
//     attributes  format, format_version, key, payload_sha256
//     key         SHA-256(format version, weights (LoRA: the base's, and adapters that add to it), model shape,
//                 key of the token store, split, dtype of the computation; for mismatched answers their seed)
//
// The token store's key covers data, tokenizer, chat template and lengths (data/store/build_store.h).
//
// With LoRA the base may compute it for every batch instead (train/step/learner.h: Reference::base).

#include "data/packing/loader.h"
#include "train/run/session.h"
#include "train/step/learner.h"

namespace colonnade {

struct References {
    std::vector<double> train, eval;   ///< log-probabilities as in the file, for LoaderOptions::reference
    std::string key;                   ///< of the training split's table: part of a checkpoint's identity
    std::vector<std::string> notices;  ///< one line for each table that was found, for the user
};

/// Reads both tables from the cache, or computes them with a progress bar. `learner` has the weights that a run of this
/// session starts from, and has them again afterwards. Throws Exit::data for a damaged cache, Exit::numerics for an
/// answer whose log-probability is not finite. All ranks call it: rank 0 computes, the others read its files.
References make_references(const Session& session, Learner& learner, const Context& ctx,
                           const Ranks& ranks = one_rank());

/// One forward pass over a store; `settings` as for an evaluation.
std::vector<double> compute_reference(const StoreResult& split, const PackScheduleSettings& settings, Learner& learner,
                                      const Context& ctx, const ProgressOptions& progress);

}  // namespace colonnade
