#pragma once
// FileSystem: the system calls by which Colonnade writes files and folders and reads the large formats. All of them go
// through file_system(), also those of the HDF5 library (engine/io/hdf5_driver.cpp), so that a test can put a
// file system of its own in their place: one that records, fails, is slow, or ends the process. LevelDB's Env and
// SQLite's VFS do the same.
//
// Each function is the POSIX call of its name: a result, or -1 with errno. Callers retry EINTR and short transfers
// (engine/io/system_call.h), but never an fsync that failed. Threads call at once.

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>

namespace colonnade {

class FileSystem {
  public:
    virtual ~FileSystem() = default;
    /// A file to read or write, or a folder to fsync. O_CLOEXEC is added; a new file has mode 0666.
    virtual int open(const std::string& path, int flags);
    virtual int close(int fd);
    virtual ssize_t read(int fd, void* into, size_t bytes);
    virtual ssize_t pread(int fd, void* into, size_t bytes, off_t offset);
    virtual ssize_t write(int fd, const void* data, size_t bytes);
    virtual ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset);
    virtual int ftruncate(int fd, off_t bytes);
    virtual int fsync(int fd);
    virtual int rename(const std::string& from, const std::string& to);
    virtual int unlink(const std::string& path);
    virtual int mkdir(const std::string& path);
    virtual int rmdir(const std::string& path);
};

/// The file system in use: that of the operating system, unless a test has replaced it.
FileSystem& file_system();

/// Bytes that this process has written to files by the calls above, for a line of progress.
uint64_t written_bytes();

/// Puts `used` in place of the operating system's file system while this object exists. For tests.
class ReplacedFileSystem {
  public:
    explicit ReplacedFileSystem(FileSystem& used);
    ~ReplacedFileSystem();
    ReplacedFileSystem(const ReplacedFileSystem&) = delete;
    ReplacedFileSystem& operator=(const ReplacedFileSystem&) = delete;

  private:
    FileSystem* before_;
};

/// Owns a descriptor of file_system().
class FileDescriptor {
  public:
    explicit FileDescriptor(int fd = -1) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~FileDescriptor();
    operator int() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }

  private:
    int fd_;
};

}  // namespace colonnade
