#pragma once
// What OpenMP and OpenBLAS read and take when they are loaded, before main().

#include <string_view>

namespace colonnade {

/// A program calls this first in main(). The first two of these are done before its libraries are initialised:
///
/// - Waiting OpenMP threads sleep, unless the environment sets OMP_WAIT_POLICY or GOMP_SPINCOUNT. By default they spin,
///   which makes programs several times slower when other processes use the cores (docs/benchmarks.md).
///   libgomp reads both variables when it is initialised: the program sets OMP_WAIT_POLICY=passive and executes itself
///   again, in the same process. If that is impossible, threads spin.
/// - If there is no address space for what OpenBLAS takes when it is initialised, the program ends with Exit::memory and
///   one line. OpenBLAS would try for ever.
/// - If OpenBLAS does not know the processor and took kernels for one without AVX2, the program executes itself again with
///   OPENBLAS_CORETYPE, which it reads when it is initialised, unless the environment has it. Debian 12's OpenBLAS
///   (0.3.21) does not know Xeons since Sapphire Rapids: products take 5 times as long with what it takes
///   (docs/benchmarks.md).
void settle_libraries();

/// The variable that says so to libgomp, for a program that was started as `argv`. If its parallel regions take only some
/// microseconds each, it is `threads_look_around`: threads then look that often before they sleep. A program that has
/// such work defines this function. It is called before any constructor of a library, and may not allocate.
const char* waiting_threads(const char* const* argv);
constexpr const char* threads_sleep = "OMP_WAIT_POLICY=passive";
constexpr const char* threads_look_around = "GOMP_SPINCOUNT=1000";

/// "OPENBLAS_CORETYPE=SkylakeX": the kernels that suit this processor if `chosen`, a name of OpenBLAS, are for processors
/// without AVX2, which every build needs; null if they are not, or if there is nothing better.
const char* better_kernels(std::string_view chosen);

}  // namespace colonnade
