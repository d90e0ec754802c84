#pragma once
// Times optimizer steps of a run: forward, loss, backward, gradient norm, AdamW, called as the trainer calls them, on
// the trainer's micro-batches. docs/benchmarks.md explains every figure.

#include "engine/io/json.h"
#include "train/bench/benchmark_run.h"

namespace colonnade {

/// Returns the figures under their --json names. Under mpirun all ranks call it. Throws as Learner and
/// fill_weights_and_reference() do.
Json time_steps(BenchmarkRun& run, const StepCounts& counts, const Ranks& ranks);

}  // namespace colonnade
