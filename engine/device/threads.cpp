#include "engine/device/threads.h"

#include <sys/auxv.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace colonnade {

void let_waiting_threads_sleep(char** argv) {
    if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
    if (getauxval(AT_BASE) == 0) return;  // started as `ld.so program`: the executable is ld.so
    // The resolved path, because the process takes its name in `top` and `pgrep` from it.
    std::error_code error;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    if (error || setenv("OMP_WAIT_POLICY", "passive", 0) != 0) return;
    execv(self.c_str(), argv);
}

}  // namespace colonnade
