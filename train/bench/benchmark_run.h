#pragma once
// BenchmarkRun: the run that bench_step times. It is either the run of a config, with the model, samples, objective and
// reference of `train`, or the run of a shape: random weights on rows or samples of train/bench/step_workload.h.

#include <algorithm>
#include <string>
#include <vector>

#include "engine/ranks/ranks.h"
#include "train/bench/step_workload.h"
#include "train/run/reference.h"
#include "train/run/session.h"

namespace colonnade {

struct StepCounts {
    int64_t warmup = 3;
    int64_t timed = 20;
    int64_t profiled = 3;
    /// Steps that have rows of their own: all but the warm-up take the same rows.
    int64_t all() const { return warmup + std::max(timed, profiled); }
};

/// A model by its shape, and its training data: by default one document in every row.
struct ShapeRequest {
    std::string model;  ///< name of a published model; empty: `shape`
    ModelShape shape;
    std::string lengths;                ///< a file for read_row_lengths(), or empty
    int64_t mean_length = 0;            ///< above 0: packed samples of log-normal length
    std::vector<int64_t> trees;         ///< samples that begin alike: stem, leaves, trunk, leaf of TreeLengths
    std::vector<int64_t> pair_lengths;  ///< stages dpo and rm: prompt, chosen, rejected
    bool repeat_prompts = false;
    /// The keys of a config: stage, batch, packing_length, machine; lora_rank above 0 trains adapters. run_of_shape()
    /// settles the defaults that depend on other keys.
    Config config;
};

struct BenchmarkRun {
    Session session{};             ///< for a shape: config, device, model, and session.train if samples are packed
    FoundFit fit{};                ///< for a shape with fit: auto
    std::string name{};            ///< of the model
    std::string description{};     ///< of the rows, in words
    bool random_weights = false;   ///< true for a shape
    std::vector<Batch> batches{};  ///< micro-batches in order, if no samples are packed
    StepLayout layout{};
    int64_t steps = 0;  ///< number of steps that the micro-batches are for
    /// Log-probabilities of all branches, if the objective compares with a precomputed reference.
    std::vector<double> reference{};
    bool has_pairs() const { return session.config.rows() == RowKind::preferences; }
};

/// Throws as load_config() and open_session() do.
BenchmarkRun run_of_config(const std::string& path, const std::vector<std::string>& overrides, const StepCounts& steps,
                           const Ranks& ranks);
/// Throws Exit::config for a shape that is not a model and for pairs longer than a row. In stage dpo the reference is a
/// constant: the log-probability of an answer under a model that gives all tokens the same probability.
BenchmarkRun run_of_shape(const ShapeRequest& request, const StepCounts& steps, const Ranks& ranks);
/// The memory plan of a shape for each rank, on a device that this machine need not have, what fit: auto chooses for it, and
/// the predicted time of a step.
std::string plan_of_shape(const ShapeRequest& request, const Ranks& ranks);

/// Fills the learner's weights; for a config, also reads or computes the reference.
void fill_weights_and_reference(BenchmarkRun& run, Learner& learner, const Context& ctx, const Ranks& ranks);

}  // namespace colonnade
