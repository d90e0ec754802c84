#pragma once
// FaultyFiles: a file system that counts its calls, and fails, kills the process or is slow at those that a test
// selects. Use it with ReplacedFileSystem (engine/io/file_system.h).

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "engine/io/file_system.h"

namespace colonnade {

/// The result of exit_of_child() for a process that FaultyFiles has killed.
constexpr int killed = 128 + SIGKILL;

struct Faults {
    int fail_at = -1, kill_at = -1;  ///< index of the call, counted from 0
    int error = EIO;                 ///< errno of the failing call
    bool reads = false;              ///< reads, and opens for reading, count too
    bool stutter = false;            ///< every other transfer is interrupted, the others take at most 7 bytes
    useconds_t delay = 0;            ///< of each call that counts
};

class FaultyFiles : public FileSystem {
  public:
    /// From now on calls count. arm() again: from 0.
    void arm(const Faults& faults) {
        const std::lock_guard guard(lock_);
        faults_ = faults;
        calls_.clear();
        armed_ = true;
    }
    void disarm() {
        const std::lock_guard guard(lock_);
        armed_ = false;
    }
    /// The calls since arm(), such as "fsync /tmp/x". No other thread may be calling.
    const std::vector<std::string>& calls() const { return calls_; }
    /// The call that failed; empty if there were fewer calls.
    std::string failed() const {
        const auto n = static_cast<size_t>(faults_.fail_at);
        return n < calls_.size() ? calls_[n] : "";
    }
    /// How often the failed call was made again.
    int64_t repeats() const {
        return failed().empty() ? 0 : std::count(calls_.begin() + faults_.fail_at + 1, calls_.end(), failed());
    }

    int open(const std::string& path, int flags) override {
        const bool counts = (flags & O_ACCMODE) != O_RDONLY || faults_.reads;
        if (counts && fails("open " + path)) return -1;
        const int fd = FileSystem::open(path, flags);
        const std::lock_guard guard(lock_);
        paths_[fd] = path;
        return fd;
    }
    int close(int fd) override {
        const std::string path = path_of(fd);
        const int result = FileSystem::close(fd);
        return faults_.reads && fails("close " + path) ? -1 : result;
    }
    ssize_t read(int fd, void* into, size_t bytes) override {
        return faults_.reads && transfer_fails("read", fd, bytes) ? -1 : FileSystem::read(fd, into, bytes);
    }
    ssize_t pread(int fd, void* into, size_t bytes, off_t offset) override {
        return faults_.reads && transfer_fails("read", fd, bytes) ? -1 : FileSystem::pread(fd, into, bytes, offset);
    }
    ssize_t write(int fd, const void* data, size_t bytes) override {
        return transfer_fails("write", fd, bytes) ? -1 : FileSystem::write(fd, data, bytes);
    }
    ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) override {
        return transfer_fails("write", fd, bytes) ? -1 : FileSystem::pwrite(fd, data, bytes, offset);
    }
    int ftruncate(int fd, off_t bytes) override {
        return fails("truncate " + path_of(fd)) ? -1 : FileSystem::ftruncate(fd, bytes);
    }
    /// Only counted: a test has no power cut.
    int fsync(int fd) override { return fails("fsync " + path_of(fd)) ? -1 : 0; }
    int rename(const std::string& from, const std::string& to) override {
        return fails("rename " + from + " " + to) ? -1 : FileSystem::rename(from, to);
    }
    int unlink(const std::string& path) override { return fails("unlink " + path) ? -1 : FileSystem::unlink(path); }
    int mkdir(const std::string& path) override { return fails("mkdir " + path) ? -1 : FileSystem::mkdir(path); }
    int rmdir(const std::string& path) override { return fails("rmdir " + path) ? -1 : FileSystem::rmdir(path); }

  private:
    std::string path_of(int fd) {
        const std::lock_guard guard(lock_);
        return paths_[fd];
    }
    bool fails(const std::string& call) {
        const std::lock_guard guard(lock_);
        if (!armed_) return false;
        if (faults_.delay > 0) usleep(faults_.delay);
        const int n = static_cast<int>(calls_.size());
        calls_.push_back(call);
        if (n == faults_.kill_at) ::kill(getpid(), SIGKILL);
        if (n == faults_.fail_at) errno = faults_.error;
        return n == faults_.fail_at;
    }
    bool transfer_fails(const char* what, int fd, size_t& bytes) {
        if (fails(fmt::format("{} {}", what, path_of(fd)))) return true;
        const std::lock_guard guard(lock_);
        if (!armed_ || !faults_.stutter) return false;
        bytes = std::min<size_t>(bytes, 7);
        if (calls_.size() % 2 == 1) errno = EINTR;
        return calls_.size() % 2 == 1;
    }

    std::mutex lock_;
    bool armed_ = false;
    Faults faults_;
    std::vector<std::string> calls_;
    std::map<int, std::string> paths_;
};

}  // namespace colonnade
