#pragma once
// Tests with several ranks: programs under mpirun, if necessary with more ranks than cores. Skipped without mpirun.
//
// A body that runs on every rank is a test whose suite begins with DISABLED_. Another test starts it by
// run_on_ranks(3, "DISABLED_Suite.Name"). Its expectations count, and every rank prints its failures.

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "engine/device/device.h"
#include "engine/ranks/message_passing.h"
#include "tests/support/paths.h"
#include "tests/support/program.h"

namespace colonnade {

/// Path of mpirun; empty without mpirun or in a build without MPI.
inline std::string mpirun() {
    return mpi::built_in() ? program_in_path("mpirun") : "";
}

/// Hides or shows the GPUs that this process was given to the programs of a test. The process itself keeps seeing them.
inline void show_gpus(bool shown) {
    constexpr const char* variable = "CUDA_VISIBLE_DEVICES";
    static const std::optional<std::string> given = [] {
        const char* const value = std::getenv(variable);
        cuda_devices();  // CUDA reads the variable at its first call
        return value ? std::optional<std::string>(value) : std::nullopt;
    }();
    if (!shown)
        setenv(variable, "", 1);
    else if (given)
        setenv(variable, given->c_str(), 1);
    else
        unsetenv(variable);
}

/// Ranks do not share a GPU: hides the GPUs from the programs of a test if there are fewer than `ranks`.
inline void hide_scarce_gpus(int ranks) {
    if (std::ssize(cuda_devices()) < ranks) show_gpus(false);
}

inline void allow_ranks() {
    for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"}) setenv(name, "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 0);     // leaks of MPI itself
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);  // waiting ranks must not occupy the cores of the others
}

/// Arguments of mpirun that start `ranks` processes of one of our programs.
inline std::vector<std::string> on_ranks(int ranks, const std::string& program,
                                         const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {"--oversubscribe",     "--bind-to",          "none", "-np",
                                    std::to_string(ranks), program_path(program)};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return all;
}

/// Number of occurrences of `part` in `text`.
inline int count_of(const std::string& text, const std::string& part) {
    int count = 0;
    for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++count;
    return count;
}

/// The process of a rank, found among mpirun's children; 0 if there is none.
inline pid_t process_of_rank(pid_t launcher, int rank) {
    std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", launcher));
    const std::string wanted = fmt::format("OMPI_COMM_WORLD_RANK={}", rank);
    for (pid_t child; children >> child;) {
        std::ifstream environment(fmt::format("/proc/{}/environ", child));
        for (std::string variable; std::getline(environment, variable, '\0');)
            if (variable == wanted) return child;
    }
    return 0;
}

/// True if the process has ended (it may be a zombie).
inline bool is_gone(pid_t process) {
    std::ifstream status(fmt::format("/proc/{}/stat", process));
    std::string text;
    std::getline(status, text);
    const size_t end = text.rfind(')');
    return end == std::string::npos || text[end + 2] == 'Z' || text[end + 2] == 'X';
}

/// Runs the test `filter` of this test program on several ranks.
inline Program::Result run_on_ranks(int ranks, const std::string& filter) {
    return Program(mpirun(), on_ranks(ranks, this_program(), arguments_for(filter)), allow_ranks).wait();
}

}  // namespace colonnade
