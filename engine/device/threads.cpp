#include "engine/device/threads.h"

#include <sys/auxv.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace colonnade {

void let_waiting_threads_sleep(char** argv, int spins) {
    if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
    if (getauxval(AT_BASE) == 0) return;  // started as `ld.so program`: the executable is ld.so
    // The resolved path, because the process takes its name in `top` and `pgrep` from it.
    std::error_code error;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    const bool set = spins > 0 ? setenv("GOMP_SPINCOUNT", std::to_string(spins).c_str(), 0) == 0
                               : setenv("OMP_WAIT_POLICY", "passive", 0) == 0;
    if (error || !set) return;
    execv(self.c_str(), argv);
}

}  // namespace colonnade
