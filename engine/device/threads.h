#pragma once
// How OpenMP's threads wait.

namespace colonnade {

/// Lets OpenMP's threads sleep while they wait, unless the environment sets OMP_WAIT_POLICY or GOMP_SPINCOUNT. By
/// default they spin, which makes programs several times slower when other processes use the cores
/// (docs/benchmarks.md). libgomp reads both variables when it is loaded, before main. So this function, the first
/// statement of main, sets OMP_WAIT_POLICY=passive and executes the program again, in the same process, with `argv`.
/// It returns in the second execution. It also returns if exec is impossible: then threads spin.
void let_waiting_threads_sleep(char** argv);

}  // namespace colonnade
