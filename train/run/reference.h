#pragma once
// The reference of preference training: the log-probability of every answer in a data set under a frozen model. One
// forward pass over the data computes it before training. It is kept per sample and branch, so that packs may change,
// and is cached as <prepared_path>/reference-<split>-<first 16 hex digits of the key>.h5:
//
//     logps       f64 [branches]   of the store's samples, in order
//     attributes  format, format_version, key, payload_sha256
//     key         SHA-256(format version, weights (LoRA: the base's, and adapters that add to it), model shape,
//                 key of the token store, split, dtype of the computation)
//
// The key of the token store covers data, tokenizer, chat template and lengths (data/store/build_store.h).
//
// With LoRA the base can compute the reference of every batch instead (base_alone()), which needs no memory of its own.

#include "data/packing/loader.h"
#include "train/run/session.h"
#include "train/step/learner.h"

namespace colonnade {

class ReferenceTable {
  public:
    ReferenceTable() = default;
    /// `logps`: one per branch of `store`, in order.
    ReferenceTable(const TokenStore& store, std::vector<double> logps);

    /// Sets the reference of a batch of this store.
    void attach(LoadedBatch& loaded) const;
    const std::vector<double>& logps() const { return logps_; }

  private:
    std::vector<int64_t> begins_;  ///< [samples + 1]: branches of each sample
    std::vector<double> logps_;
};

struct References {
    ReferenceTable train, eval;
    std::string key;                   ///< key of the training split's table: part of a checkpoint's identity
    std::vector<std::string> notices;  ///< for the user: one line per table found
};

/// Reads both tables from the cache, or computes them with a progress bar. `learner` has the weights that a run of this
/// session starts from, and has them again afterwards. Throws Exit::data for a damaged cache, Exit::numerics for an
/// answer whose log-probability is not finite. All ranks call it: rank 0 computes, the others read its files.
References make_references(const Session& session, Learner& learner, const Context& ctx,
                           const Ranks& ranks = one_rank());

/// The reference of a policy that started from its base: the base without the adapters. For LearnerOptions::reference.
ReferenceForward base_alone();

/// Runs one forward pass over a store; `settings` as for an evaluation.
ReferenceTable compute_reference(const TokenStore& store, const PackScheduleSettings& settings, Learner& learner,
                                 const Context& ctx, const ProgressOptions& progress);

}  // namespace colonnade
