#include "engine/io/folder_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "engine/io/files.h"
#include "engine/io/system_call.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// A temporary name: "<name>.tmp-<pid>", or with "-<n>" at its end.
struct TemporaryName {
    std::string_view name;
    pid_t pid;
};
std::optional<TemporaryName> temporary_name(std::string_view text) {
    for (const std::string_view mark : {".tmp-", ".trash-"}) {
        const size_t at = text.rfind(mark);
        if (at == text.npos) continue;
        const char *const digits = text.data() + at + mark.size(), *const end = text.data() + text.size();
        TemporaryName found{text.substr(0, at), 0};
        const auto [stop, error] = std::from_chars(digits, end, found.pid);
        if (error == std::errc() && found.pid > 0 && (stop == end || *stop == '-')) return found;
    }
    return {};
}

bool runs(pid_t pid) {
    return ::kill(pid, 0) == 0 || errno != ESRCH;
}

void sweep(const std::string& folder, std::span<const std::string_view> stems,
           const std::function<bool(pid_t)>& is_left) {
    std::vector<std::string> leftovers;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
        const std::string file = entry->path().filename();
        const std::optional<TemporaryName> found = temporary_name(file);
        if (!found || !is_left(found->pid)) continue;
        if (std::ranges::any_of(stems, [&](std::string_view stem) { return found->name.starts_with(stem); }))
            leftovers.push_back(entry->path());
    }
    if (error) fail(Exit::storage, "{}: cannot list: {}", folder, error.message());
    std::string trouble;  // the first; the others are tried nevertheless
    for (const std::string& path : leftovers) {
        try {
            remove_tree(path);
        } catch (const Error& e) {
            if (trouble.empty()) trouble = e.what();
        }
    }
    if (!trouble.empty()) throw Error(Exit::storage, trouble);
}

}  // namespace

FolderLock::FolderLock(const std::string& folder) {
    const std::string path = folder + "/.lock";
    fd_ = FileDescriptor(uninterrupted([&] { return file_system().open(path, O_RDWR | O_CREAT); }));
    if (fd_ < 0) refused("create", path);
    std::array<char, 256> text{};
    if (uninterrupted([&] { return ::flock(fd_, LOCK_EX | LOCK_NB); }) != 0 && errno != ENOSYS && errno != EOPNOTSUPP) {
        if (errno != EWOULDBLOCK) refused("lock", path);
        const ssize_t got = file_system().pread(fd_, text.data(), text.size() - 1, 0);
        fail(Exit::config, "{}: in use by {} ({} is locked)", folder, got > 0 ? text.data() : "another process", path);
    }
    std::array<char, 128> host{};
    ::gethostname(host.data(), host.size() - 1);
    const std::string holder = fmt::format("process {} on {}", ::getpid(), host.data());
    // The text is only for error messages; the lock is what counts.
    if (file_system().ftruncate(fd_, 0) == 0) file_system().pwrite(fd_, holder.data(), holder.size(), 0);
}

void sweep_folder(const std::string& folder, std::span<const std::string_view> stems) {
    sweep(folder, stems, [](pid_t) { return true; });
}

SharedFolder::SharedFolder(const std::string& folder, std::span<const std::string_view> stems)
    : fd_(uninterrupted([&] { return file_system().open(folder, O_RDONLY | O_DIRECTORY); })) {
    if (fd_ < 0) return;
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) {
        try {
            // Our own pid is that of a dead process: alone with the lock, we have written nothing yet.
            sweep(folder, stems, [](pid_t pid) { return pid == ::getpid() || !runs(pid); });
        } catch (const Error&) {  // it may be read-only for us
        }
    }
    uninterrupted([&] { return ::flock(fd_, LOCK_SH); });
}

}  // namespace colonnade
