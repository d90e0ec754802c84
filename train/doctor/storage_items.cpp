// Disk, and the cache of the hub.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "engine/device/error.h"
#include "engine/device/human_units.h"
#include "engine/device/timing.h"
#include "engine/hub/hub_settings.h"
#include "engine/io/files.h"
#include "train/doctor/doctor.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// Removes the file at the end.
struct ScratchFile {
    std::string path;
    ~ScratchFile() {
        std::error_code ignored;
        fs::remove(path, ignored);
    }
};

/// Forgets the pages that the kernel holds of a file, so that reading asks the disk.
void drop_pages(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/// Bytes per second of a file that is written, fsynced, and read again.
struct DiskSpeed {
    double write, read;
};
DiskSpeed measure_disk(const std::string& folder, size_t bytes) {
    const ScratchFile scratch{fmt::format("{}/colonnade-doctor-{}.tmp", folder, getpid())};
    std::vector<char> block(size_t{8} << 20);
    for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<char>(i * 2654435761u >> 13);
    auto start = std::chrono::steady_clock::now();
    OutputFile out(scratch.path);
    for (size_t done = 0; done < bytes; done += block.size())
        out.write(block.data(), std::min(block.size(), bytes - done));
    out.close();
    const double writing = seconds_since(start);
    drop_pages(scratch.path);
    start = std::chrono::steady_clock::now();
    InputFile in(scratch.path);
    while (in.read(block.data(), block.size()) > 0) {
    }
    const auto size = static_cast<double>(bytes);
    return {size / writing, size / seconds_since(start)};
}

Item disk_item(const std::string& folder, size_t bytes) {
    Item item{.name = "disk"};
    try {
        const DiskSpeed speed = measure_disk(folder, bytes);
        item.found = fmt::format("{}: writes {:.0f} MB/s, reads {:.0f} MB/s ({})", folder, speed.write / 1e6,
                                 speed.read / 1e6, human_bytes(bytes));
        if (speed.write < 50e6) {
            item.health = Health::note;
            item.remedy =
                "Slow: a checkpoint has 12 bytes for each trained parameter. Put output_dir on another disk, or save "
                "less "
                "often (save_steps).";
        }
    } catch (const Error& error) {
        item.found = error.what();
        item.health = Health::bad;
        item.remedy = "Choose a folder that you may write (--folder), or free space on its disk.";
    }
    return item;
}

Item space_item(const std::string& folder) {
    std::error_code error;
    const fs::space_info space = fs::space(folder, error);
    if (error)
        return {.name = "space",
                .found = fmt::format("{}: {}", folder, error.message()),
                .health = Health::bad,
                .remedy = "Name a folder that exists (--folder)."};
    Item item{
        .name = "space",
        .found = fmt::format("{}: {} free of {}", folder, human_bytes(space.available), human_bytes(space.capacity))};
    if (space.available < uintmax_t{10} << 30) {
        item.health = Health::note;
        item.remedy =
            "Less than 10 GiB: colonnade plan prints what a run writes; save_total_limit bounds the checkpoints that "
            "it "
            "keeps.";
    }
    return item;
}

}  // namespace

std::vector<Item> storage_items(const DoctorOptions& options) {
    return {disk_item(options.folder, options.disk_bytes), space_item(options.folder)};
}

std::vector<Item> hub_items() {
    try {
        const HubSettings hub = hub_settings();
        Item item{.name = "hub",
                  .found = fmt::format(
                      "{}, cache {}{}, {}{}", hub.endpoint, hub.cache, path_exists(hub.cache) ? "" : " (not there yet)",
                      hub.token.empty() ? "no token" : "token of " + hub.token_source, hub.offline ? ", offline" : "")};
        // The nearest folder that exists is where the cache is made.
        fs::path at = hub.cache;
        while (!at.empty() && at != at.parent_path() && !path_exists(at)) at = at.parent_path();
        if (access(at.c_str(), W_OK) != 0) {
            item.health = Health::bad;
            item.remedy = fmt::format("Nothing can be written to {}: set HF_HOME to a folder of yours.", at.string());
        }
        return {item};
    } catch (const Error& error) {
        return {
            {.name = "hub", .found = error.what(), .health = Health::bad, .remedy = "Correct or unset that variable."}};
    }
}

}  // namespace colonnade
