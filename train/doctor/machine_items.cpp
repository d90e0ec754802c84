// CPU, memory and limits of the process.

#include <fmt/format.h>
#include <omp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>

#include "engine/device/gemm.h"
#include "engine/device/host_memory.h"
#include "engine/device/human_units.h"
#include "engine/device/threads.h"
#include "train/doctor/doctor.h"
#include "train/run/machine.h"

namespace colonnade {
namespace {

Item processor() {
    const int cores = omp_get_num_procs();
    double load = 0;
    const bool known = getloadavg(&load, 1) == 1;
    const std::string kernels = blas_kernels();
    Item item{.name = "CPU",
              .found = fmt::format("{}, {} cores for this process{}, OpenBLAS {}", device_name(Device::cpu, 0), cores,
                                   known ? fmt::format(", load {:.1f}", load) : "", kernels)};
    if (const char* const better = better_kernels(kernels.substr(kernels.rfind(' ') + 1))) {
        item.health = Health::note;
        item.remedy = fmt::format(
            "OPENBLAS_CORETYPE makes OpenBLAS use kernels for older processors: leave it unset, or "
            "export {}.",
            better);
    } else if (known && load > cores + 0.5) {
        item.health = Health::note;
        item.remedy = "Other programs use these cores: end them, or give the run fewer threads (key threads).";
    }
    return item;
}

Item memory() {
    const size_t free = available_memory(),
                 all = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
    Item item{.name = "memory", .found = fmt::format("{} free of {}", human_bytes(free), human_bytes(all))};
    if (free < size_t{2} << 30) {
        item.health = Health::note;
        item.remedy =
            "Less than 2 GiB: end other programs, or raise the limit of the container. colonnade plan prints what a "
            "run "
            "takes.";
    }
    return item;
}

std::string text_of_limit(rlim_t limit, bool bytes) {
    if (limit == RLIM_INFINITY) return "unlimited";
    return bytes ? human_bytes(limit) : fmt::format("{}", limit);
}

Item process_limits() {
    rlimit files{}, locked{};
    getrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_MEMLOCK, &locked);
    Item item{.name = "limits",
              .found = fmt::format("{} open files, {} of locked memory", text_of_limit(files.rlim_cur, false),
                                   text_of_limit(locked.rlim_cur, true))};
    if (files.rlim_cur < 256) {
        item.health = Health::note;
        item.remedy = "Models in many files need more open files: ulimit -n 1024.";
    }
    return item;
}

}  // namespace

std::vector<Item> machine_items() {
    return {processor(), memory(), process_limits()};
}

}  // namespace colonnade
