#include "engine/io/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>

#include "engine/io/system_call.h"

namespace colonnade {

FolderLock::FolderLock(const std::string& folder) {
    const std::string path = folder + "/.lock";
    fd_ = uninterrupted([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666); });
    if (fd_ < 0) refused("create", path);
    std::array<char, 256> text{};
    if (uninterrupted([&] { return ::flock(fd_, LOCK_EX | LOCK_NB); }) != 0 && errno != ENOSYS && errno != EOPNOTSUPP) {
        const int error = errno;
        const ssize_t got = ::pread(fd_, text.data(), text.size() - 1, 0);
        ::close(fd_);
        errno = error;
        if (error != EWOULDBLOCK) refused("lock", path);
        fail(Exit::config, "{}: in use by {} ({} is locked)", folder, got > 0 ? text.data() : "another process", path);
    }
    std::array<char, 128> host{};
    ::gethostname(host.data(), host.size() - 1);
    const std::string holder = fmt::format("process {} on {}", ::getpid(), host.data());
    // The text is only for error messages; the lock is what counts.
    if (::ftruncate(fd_, 0) == 0) (void)!::pwrite(fd_, holder.data(), holder.size(), 0);
}

FolderLock::~FolderLock() {
    ::close(fd_);
}

}  // namespace colonnade
