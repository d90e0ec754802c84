#pragma once
// Log-probabilities of a data set under a frozen model: the reference of preferences, for every answer; the reference of
// a policy and the policy that drew its answers, for every learned token (train/run/given_logps.h says which of them
// are computed). One forward pass over the data computes a table before training. It is kept in the order of the store, so
// that packs may change, and is cached as <prepared_path>/reference-<split>-<first 16 hex digits of the key>.h5:
//
//     logps       f64 [sequences]; then, if there are any, of the mismatched answers (data/store/mismatched_answers.h) of
//                 all samples. For a policy f32 [learned tokens]
//     attributes  format, format_version, key, payload_sha256
//     key         SHA-256(format version, weights (LoRA: the base's, and adapters that add to it), model shape,
//                 key of the token store, split, dtype of the computation; for mismatched answers their seed, for a
//                 policy its temperature)
//
// The token store's key covers data, tokenizer, chat template and lengths (data/store/build_store.h).
//
// With LoRA the base may compute a reference for every batch instead (train/step/learner.h: Reference::base).

#include "data/packing/loader.h"
#include "train/run/session.h"
#include "train/step/learner.h"

namespace colonnade {

struct References {
    /// For answers: log-probabilities as in the file, for LoaderOptions::reference. Those of a policy are in the stores of
    /// the session.
    std::vector<double> train, eval;
    std::string key;                   ///< of the training split's tables: part of a checkpoint's identity
    std::vector<std::string> notices;  ///< one line for each table that was found, for the user
};

/// Whether make_references() needs the weights that a run of this session starts from.
bool computes_references(const Session& session, const Learner& learner);

/// Reads all tables from the cache, or computes them with a progress bar. `learner` has the weights that a run of this
/// session starts from, and has them again afterwards. Throws Exit::data for a damaged cache, Exit::numerics for a
/// log-probability that is not finite. All ranks call it: rank 0 computes, the others read its files.
References make_references(Session& session, Learner& learner, const Context& ctx, const Ranks& ranks = one_rank());

/// One forward pass over a store; `settings` as for an evaluation. Of all sequences, or for a policy of all learned
/// tokens, in order.
std::vector<double> compute_reference(const StoreResult& split, const PackScheduleSettings& settings, Learner& learner,
                                      const Context& ctx, const ProgressOptions& progress);

}  // namespace colonnade
