#pragma once
// Times optimizer steps of a run: forward, loss, backward, gradient norm, AdamW, as the trainer calls them, with the micro-
// batches coming as it gets them. What each figure means: docs/benchmarks.md.

#include "engine/io/json.h"
#include "train/bench/benchmark_run.h"

namespace colonnade {

/// Figures of the steps under the names of --json; under mpirun all ranks call it. Throws as Learner and
/// fill_weights_and_reference() do.
Json time_steps(BenchmarkRun& run, const StepCounts& counts, const Ranks& ranks);

}  // namespace colonnade
