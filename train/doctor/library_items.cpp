// Versions of libraries: of those that compute and communicate, then all others by the names of their files.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "engine/device/device.h"
#include "engine/device/loaded_libraries.h"
#include "engine/ranks/communicator.h"
#include "train/doctor/doctor.h"

namespace colonnade {
namespace {

Item mpi_item(size_t gpus) {
    Item item{.name = "MPI"};
    // May be called before MPI_Init.
    if (const auto version = reinterpret_cast<int (*)(char*, int*)>(loaded_function("MPI_Get_library_version"))) {
        std::array<char, 8192> text{};
        int length = 0;
        version(text.data(), &length);
        item.found = std::string(text.data());
        item.found.resize(std::min(item.found.size(), item.found.find_first_of(",\n")));
        return item;
    }
    item.found = "not in this build: one process";
    if (gpus > 1) {
        item.health = Health::note;
        item.remedy = "To use several GPUs install Open MPI (libopenmpi-dev) and configure the build again.";
    }
    return item;
}

Item nccl_item(size_t gpus) {
    Item item{.name = "NCCL"};
    int version = 0;
    const auto ask = reinterpret_cast<int (*)(int*)>(loaded_function("ncclGetVersion"));
    if (ask && ask(&version) == 0) {
        item.found = fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
        return item;
    }
    item.found = "not in this build: one GPU";
    if (gpus > 1) {
        item.health = Health::note;
        item.remedy = "To use several GPUs set NCCL_HOME to a folder that has NCCL and configure the build again.";
    }
    return item;
}

/// The files whose names begin so, in this order.
Item others_item() {
    constexpr const char* names[] = {"libhdf5",   "libyaml-cpp", "libsentencepiece", "libopenblas", "libcurl",
                                     "libcrypto", "libicuuc",    "libpcre2",         "libzstd",     "libz.",
                                     "libsnappy", "libfmt",      "libgomp",          "libstdc++",   "libc."};
    const std::vector<std::string> loaded = loaded_libraries();
    std::vector<std::string> found;
    for (const std::string name : names)
        for (const std::string& file : loaded)
            if (file.starts_with(name) && std::ranges::find(found, file) == found.end()) found.push_back(file);
    return {.name = "libraries", .found = fmt::format("{}", fmt::join(found, " "))};
}

}  // namespace

std::vector<Item> library_items(size_t gpus) {
    const std::string cuda = cuda_libraries();
    return {{.name = "CUDA", .found = cuda.empty() ? "not in this build" : cuda},
            nccl_item(gpus),
            mpi_item(gpus),
            others_item()};
}

}  // namespace colonnade
