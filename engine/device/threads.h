#pragma once
// How OpenMP's threads wait.

namespace colonnade {

/// Lets OpenMP's threads sleep while they wait, unless the environment sets OMP_WAIT_POLICY or GOMP_SPINCOUNT. By
/// default they spin, which makes programs several times slower when other processes use the cores
/// (docs/benchmarks.md). libgomp reads both variables when it is loaded, before main. So this function, the first
/// statement of main, sets OMP_WAIT_POLICY=passive and executes the program again, in the same process, with `argv`.
/// It returns in the second execution. It also returns if exec is impossible: then threads spin.
///
/// `spins`: how often threads look before they sleep (GOMP_SPINCOUNT), for programs whose parallel regions take only
/// some microseconds each: a decoded token has hundreds of them.
void let_waiting_threads_sleep(char** argv, int spins = 0);

}  // namespace colonnade
