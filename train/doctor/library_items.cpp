// Versions of libraries: of those that compute and communicate, then all others by the names of their files.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "engine/device/device.h"
#include "engine/device/loaded_libraries.h"
#include "engine/device/opened_library.h"
#include "engine/hub/http.h"
#include "engine/ranks/communicator.h"
#include "engine/ranks/message_passing.h"
#include "train/doctor/doctor.h"

namespace colonnade {
namespace {

/// A library that several ranks need.
struct RanksLibrary {
    std::string name, version;
    bool built_in;
    std::string without, remedy;
};
Item ranks_item(const RanksLibrary& library, size_t gpus) {
    if (!library.version.empty()) return {.name = library.name, .found = library.version};
    Item item{
        .name = library.name,
        .found = fmt::format("not {}: {}", library.built_in ? "on this machine" : "in this build", library.without)};
    if (gpus > 1) {
        item.health = Health::note;
        item.remedy = fmt::format("To use several GPUs {}{}.", library.remedy,
                                  library.built_in ? "" : " and configure the build again");
    }
    return item;
}

Item cuda_item(size_t gpus) {
    Item item{.name = "CUDA", .found = cuda_libraries()};
    if (!built_with_cuda()) item.found = "not in this build";
    if (built_with_cuda() && item.found.find("cuBLASLt") == item.found.npos) {
        item.found += ", cuBLASLt is not on this machine";
        if (gpus > 0) {
            item.health = Health::bad;
            item.remedy = "Runs on a GPU need it: install CUDA's libraries, or nvidia-cublas in a virtual environment.";
        }
    }
    return item;
}

Item http_item() {
    Item item{.name = "HTTP", .found = http_library()};
    if (!item.found.empty()) return item;
    item.found = "no libcurl on this machine: files and the hub's cache alone";
    item.health = Health::note;
    item.remedy = "To use names of the hub install the packages libcurl4 and ca-certificates.";
    return item;
}

/// Those that the portable build opens when it needs them.
std::vector<Item> opened_items() {
    std::vector<std::string> files;
    for (const OpenedFile& library : opened_files()) files.push_back(library.file);
    if (files.empty()) return {};
    return {{.name = "opened", .found = fmt::format("{}", fmt::join(files, " "))}};
}

/// Of the portable build: which version of it the loader has chosen for this processor.
std::vector<Item> cpu_code_items() {
    for (const std::filesystem::path& file : loaded_libraries())
        if (file.filename() == "libcolonnade_cpu.so") return {{.name = "CPU code", .found = file}};
    return {};
}

/// The files whose names begin so, in this order.
Item others_item() {
    constexpr const char* names[] = {"libhdf5",   "libyaml-cpp", "libsentencepiece", "libopenblas", "libcurl",
                                     "libcrypto", "libicuuc",    "libpcre2",         "libzstd",     "libz.",
                                     "libsnappy", "libfmt",      "libgomp",          "libstdc++",   "libc."};
    std::vector<std::string> loaded;
    for (const std::filesystem::path& file : loaded_libraries()) loaded.push_back(file.filename());
    std::vector<std::string> found;
    for (const std::string name : names)
        for (const std::string& file : loaded)
            if (file.starts_with(name) && std::ranges::find(found, file) == found.end()) found.push_back(file);
    return {.name = "libraries", .found = fmt::format("{}", fmt::join(found, " "))};
}

}  // namespace

std::vector<Item> library_items(size_t gpus) {
    const RanksLibrary nccl{"NCCL", nccl_version(), built_with_nccl(), "one GPU",
                            "install NCCL or set NCCL_HOME to a folder that has it"};
    const RanksLibrary open_mpi{"MPI", mpi::library_version(), mpi::built_in(), "one process", "install Open MPI"};
    std::vector<Item> items = {cuda_item(gpus), ranks_item(nccl, gpus), ranks_item(open_mpi, gpus), http_item()};
    std::ranges::move(opened_items(), std::back_inserter(items));
    std::ranges::move(cpu_code_items(), std::back_inserter(items));
    items.push_back(others_item());
    return items;
}

}  // namespace colonnade
