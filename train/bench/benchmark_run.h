#pragma once
// BenchmarkRun: what bench_step times. Either the run of a config, with its model, samples, objective and reference as
// `train` has them, or that of a shape: random weights, on rows or samples of train/bench/step_workload.h.

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
    /// Several ranks take further steps without exchange, the first of them to warm up.
    int64_t all(const Ranks& ranks) const { return warmup + timed + profiled + (ranks.several() ? 1 + timed : 0); }
};

/// A model by its shape, and what it learns from: by default one document in every row.
struct ShapeRequest {
    std::string model;                  ///< a published one by name, else
    std::vector<int64_t> sizes;         ///< hidden, ffn, layers, heads, kv_heads, head_dim, vocab
    std::string lengths;                ///< file of train/bench/step_workload.h, or empty
    int64_t mean_length = 0;            ///< above 0: packed samples of log-normal length
    std::vector<int64_t> pair_lengths;  ///< stages dpo and rm: prompt, chosen, rejected
    bool repeat_prompts = false;
    /// The keys that a config would have: stage, batch, packing_length, machine; lora_rank above 0 asks for adapters. What
    /// hangs on other keys is settled by run_of_shape().
    Config config;
};

struct BenchmarkRun {
    Session session{};             ///< of a shape: config, device, model; where samples are packed, session.train
    std::string name{}, rows{};    ///< of the model and its packs, in words
    bool random_weights = false;   ///< of a shape
    std::vector<Batch> batches{};  ///< where nothing is packed: micro-batches in order
    StepLayout layout{};
    int64_t steps = 0;  ///< that there are micro-batches for
    std::vector<double>
        reference{};  ///< log-probabilities of all branches, if the objective compares with a kept reference
    bool has_pairs() const { return session.config.rows() == RowKind::preferences; }
};

/// Throws as load_config() and open_session() do.
BenchmarkRun run_of_config(const std::string& path, const std::vector<std::string>& overrides, const StepCounts& steps,
                           const Ranks& ranks);
/// Throws Exit::config for a shape that is no model, and pairs that are longer than a row. Of stage dpo the reference is a
/// constant, the log-probability of an answer under a model that finds all tokens equally likely.
BenchmarkRun run_of_shape(const ShapeRequest& request, const StepCounts& steps, const Ranks& ranks);
/// The memory plan of a shape, for each of so many ranks, on a device that need not be there.
std::string plan_of_shape(const ShapeRequest& request, const Ranks& ranks);

/// Fills the learner's weights and, of a config, finds or computes the reference.
void fill_weights_and_reference(BenchmarkRun& run, Learner& learner, const Context& ctx, const Ranks& ranks);

}  // namespace colonnade
