#pragma once
// What OpenMP and OpenBLAS read and take when they are loaded, before main().

namespace colonnade {

/// A program that calls this has the following done before its libraries are initialised. The call itself does nothing.
///
/// - Waiting OpenMP threads sleep, unless the environment sets OMP_WAIT_POLICY or GOMP_SPINCOUNT. By default they spin,
///   which makes programs several times slower when other processes use the cores (docs/benchmarks.md).
///   libgomp reads both variables when it is initialised: the program sets OMP_WAIT_POLICY=passive and executes itself
///   again, in the same process. If that is impossible, threads spin.
/// - If there is no address space for what OpenBLAS takes when it is initialised, the program ends with Exit::memory and
///   one line. OpenBLAS would try for ever.
void settle_libraries();

/// The variable that says so to libgomp, for a program that was started as `argv`. If its parallel regions take only some
/// microseconds each, it is `threads_look_around`: threads then look that often before they sleep. A program that has
/// such work defines this function. It is called before any constructor of a library, and may not allocate.
const char* waiting_threads(const char* const* argv);
constexpr const char* threads_sleep = "OMP_WAIT_POLICY=passive";
constexpr const char* threads_look_around = "GOMP_SPINCOUNT=1000";

}  // namespace colonnade
