#include "engine/device/threads.h"

#include <alloca.h>
#include <cblas.h>
#include <linux/limits.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "engine/device/blas_memory.h"
#include "engine/device/error.h"
#include "engine/device/host_memory.h"

// The loader calls the functions of .preinit_array before the constructors of all libraries, those of the C and the C++
// library included: nothing here may allocate, throw, or use getenv() and setenv(). A sanitizer is not ready either, so
// its builds do without.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace colonnade {
namespace {

/// The value of a variable, or null.
const char* value_of(const char* name, char** environment) {
    const size_t length = std::strlen(name);
    for (; *environment; ++environment)
        if (std::strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    return nullptr;
}

/// Executes the program again with one more variable, "NAME=VALUE". Returns if that is impossible.
void execute_again(char** argv, char** environment, const char* variable) {
    if (getauxval(AT_BASE) == 0) return;  // started as `ld.so program`: the executable is ld.so
    size_t count = 0;
    while (environment[count]) ++count;
    auto** const wanted = static_cast<char**>(alloca((count + 2) * sizeof(char*)));
    std::memcpy(wanted, environment, count * sizeof(char*));
    wanted[count] = const_cast<char*>(variable);
    wanted[count + 1] = nullptr;
    // The resolved path, because the process takes its name in `top` and `pgrep` from it.
    char self[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return;
    self[length] = '\0';
    execve(self, argv, wanted);
}

/// With OMP_WAIT_POLICY, or what the program wants instead, unless the environment says how threads wait.
void let_waiting_threads_sleep(char** argv, char** environment) {
    if (value_of("OMP_WAIT_POLICY", environment) || value_of("GOMP_SPINCOUNT", environment)) return;
    execute_again(argv, environment, waiting_threads(argv));
}

/// The buffers that the constructor of OpenBLAS takes: one for each thread that it might use.
size_t first_buffers(char** environment) {
    constexpr size_t most = 128;  // of a usual build of OpenBLAS
    cpu_set_t cores;
    const size_t usable = sched_getaffinity(0, sizeof cores, &cores) == 0 ? static_cast<size_t>(CPU_COUNT(&cores)) : 1;
    const char* const threads = value_of("OMP_NUM_THREADS", environment);
    const long wanted = threads ? std::strtol(threads, nullptr, 10) : 0;
    return std::min({most, usable, wanted > 0 ? static_cast<size_t>(wanted) : most});
}

void require_blas_memory(const char* path, char** environment) {
    constexpr size_t slack = size_t{16} << 20;
    const size_t buffers = first_buffers(environment);
    if (has_address_space(buffers * blas_buffer_bytes + slack)) return;
    const char* const slash = std::strrchr(path, '/');
    rlimit limit{};
    getrlimit(RLIMIT_AS, &limit);
    char line[300];
    const int length = std::snprintf(line, sizeof line,
                                     "%s: error: not enough memory: OpenBLAS takes %zu MiB of address space at the "
                                     "start for each of %zu threads, and the process may have no more (ulimit -v: %llu "
                                     "MiB): raise the limit, or set OMP_NUM_THREADS\n",
                                     slash ? slash + 1 : path, blas_buffer_bytes >> 20, buffers,
                                     static_cast<unsigned long long>(limit.rlim_cur >> 20));
    (void)!write(2, line, static_cast<size_t>(length));
    _exit(static_cast<int>(Exit::memory));
}

char** started_as = nullptr;

void before_libraries(int, char** argv, char** environment) {
    started_as = argv;
    let_waiting_threads_sleep(argv, environment);
    require_blas_memory(argv[0] ? argv[0] : "program", environment);
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const at_start)(int, char**, char**) = before_libraries;

}  // namespace

void settle_libraries() {
    if (!started_as || std::getenv("OPENBLAS_CORETYPE")) return;
    if (const char* const variable = better_kernels(openblas_get_corename()))
        execute_again(started_as, environ, variable);
}

}  // namespace colonnade
#else
namespace colonnade {

void settle_libraries() {}

}  // namespace colonnade
#endif

namespace colonnade {

const char* better_kernels(std::string_view chosen) {
    constexpr std::string_view without_avx2[] = {"Prescott", "Generic", "Core2", "Penryn", "Nehalem", "Sandybridge"};
    if (std::ranges::find(without_avx2, chosen) == std::end(without_avx2)) return nullptr;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return "OPENBLAS_CORETYPE=SkylakeX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "OPENBLAS_CORETYPE=Haswell";
#endif
    return nullptr;
}

[[gnu::weak]] const char* waiting_threads(const char* const*) {
    return threads_sleep;
}

}  // namespace colonnade
