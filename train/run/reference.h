#pragma once
// The reference of preference training: the log-probability of every answer of a data set under a model that stays as it
// is. Computed once, before training, in one forward pass over the data; kept per sample and branch, so that packs may
// change; and cached as <prepared_path>/reference-<split>-<first 16 hex digits of the key>.h5:
//
//     logps       f64 [branches]   of the store's samples, in order
//     attributes  format, format_version, key, payload_sha256
//     key         SHA-256(format version, weights (with LoRA the base's, and adapters that add to them), model shape, key of the token store, split, dtype of the computation)
//
// The token store's key covers data, tokenizer, chat template and lengths (data/build_store.h).
//
// With LoRA the base may compute it anew with every batch instead (train/step/learner.h: Reference::base).

#include "data/loader.h"
#include "train/run/session.h"
#include "train/step/learner.h"

namespace colonnade {

struct References {
    std::vector<double> train, eval;   ///< log-probabilities of all branches of a store, for LoaderOptions::reference
    std::string key;                   ///< of the training split's table: part of a checkpoint's identity
    std::vector<std::string> notices;  ///< one line for each table that was found, for the user
};

/// Finds both tables under their keys, or computes them, telling progress. `learner` holds the weights that a run of this
/// session starts from, and does so afterwards, too. Throws Exit::data for a damaged cache, Exit::numerics for an answer
/// whose log-probability is not finite. With several ranks, which all call it, rank 0 computes and the others find what
/// it wrote.
References make_references(const Session& session, Learner& learner, const Context& ctx,
                           const Ranks& ranks = one_rank());

/// One forward pass over a store; `settings` as for an evaluation.
std::vector<double> compute_reference(const TokenStore& store, const PackScheduleSettings& settings, Learner& learner,
                                      const Context& ctx, const ProgressOptions& progress);

}  // namespace colonnade
