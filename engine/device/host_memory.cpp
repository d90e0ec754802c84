#include "engine/device/host_memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>

#include "engine/device/human_units.h"
#include "engine/device/used_memory.h"

namespace colonnade {
namespace {

/// A file of one number; nothing if there is no such file, or "max".
std::optional<size_t> number_in(const std::string& path) {
    size_t number = 0;
    if (!(std::ifstream(path) >> number)) return {};
    return number;
}

/// The sum of some lines "key number" of a file.
size_t sum_of(const std::string& path, std::initializer_list<std::string_view> keys) {
    size_t sum = 0, number = 0;
    std::ifstream file(path);
    for (std::string key, unit; file >> key >> number && std::getline(file, unit);)
        if (std::ranges::find(keys, key) != keys.end()) sum += number;
    return sum;
}

struct GroupFiles {
    std::string root;
    const char *limit, *used;
    std::initializer_list<std::string_view> cache;  ///< keys of memory.stat
};

/// What a control group and those above it leave. In a container the path of a group may not exist: its files are then
/// those at the root.
size_t available_in_groups(const GroupFiles& files, std::string group) {
    size_t available = SIZE_MAX;
    for (bool root = false; !root; group.resize(std::min(group.rfind('/'), group.size()))) {
        root = group.find_first_not_of('/') == group.npos;
        const std::string folder = files.root + group + "/";
        const auto limit = number_in(folder + files.limit), used = number_in(folder + files.used);
        if (!limit || !used) continue;
        const size_t kept = *used - std::min(*used, sum_of(folder + "memory.stat", files.cache));
        available = std::min(available, *limit - std::min(*limit, kept));
    }
    return available;
}

size_t available_in_groups() {
    size_t available = SIZE_MAX;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {  // "number:controllers:path"
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == line.npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
        if (controllers.empty())
            available = std::min(available, available_in_groups({.root = "/sys/fs/cgroup",
                                                                 .limit = "memory.max",
                                                                 .used = "memory.current",
                                                                 .cache = {"inactive_file", "active_file"}},
                                                                group));
        else if (controllers == "memory")
            available = std::min(available, available_in_groups({.root = "/sys/fs/cgroup/memory",
                                                                 .limit = "memory.limit_in_bytes",
                                                                 .used = "memory.usage_in_bytes",
                                                                 .cache = {"total_inactive_file", "total_active_file"}},
                                                                group));
    }
    return available;
}

size_t address_space_limit() {
    rlimit limit{};
    return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur : SIZE_MAX;
}

/// Address space and resident memory of the process, in bytes.
struct Sizes {
    size_t space = 0, resident = 0;
};
Sizes sizes_of_process() {
    Sizes pages;
    std::ifstream("/proc/self/statm") >> pages.space >> pages.resident;
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return {pages.space * page, pages.resident * page};
}

}  // namespace

size_t available_memory() {
    const size_t kilobytes = sum_of("/proc/meminfo", {"MemAvailable:"});
    return std::min({kilobytes > 0 ? kilobytes * 1024 : SIZE_MAX, available_in_groups(), available_address_space()});
}

size_t available_address_space() {
    const size_t limit = address_space_limit();
    return limit == SIZE_MAX ? limit : limit - std::min(limit, sizes_of_process().space);
}

bool has_address_space(size_t bytes) {
    void* const space = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space == MAP_FAILED) return false;
    munmap(space, bytes);
    return true;
}

size_t resident_memory() {
    return sizes_of_process().resident;
}

std::string memory_in_use() {
    const Sizes sizes = sizes_of_process();
    const size_t limit = address_space_limit();
    std::string text = human_bytes(sizes.resident) + " in use";
    if (limit != SIZE_MAX)
        text += ", address space " + human_bytes(sizes.space) + " of " + human_bytes(limit) + " (ulimit -v)";
    return text;
}

}  // namespace colonnade
