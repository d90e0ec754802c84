#include "engine/io/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

namespace colonnade {
namespace {

std::atomic<FileSystem*> replacement = nullptr;
std::atomic<uint64_t> written = 0;

ssize_t counted(ssize_t bytes) {
    if (bytes > 0) written += static_cast<uint64_t>(bytes);
    return bytes;
}

}  // namespace

int FileSystem::open(const std::string& path, int flags) {
    return ::open(path.c_str(), flags | O_CLOEXEC, 0666);
}
int FileSystem::close(int fd) {
    return ::close(fd);
}
ssize_t FileSystem::read(int fd, void* into, size_t bytes) {
    return ::read(fd, into, bytes);
}
ssize_t FileSystem::pread(int fd, void* into, size_t bytes, off_t offset) {
    return ::pread(fd, into, bytes, offset);
}
ssize_t FileSystem::write(int fd, const void* data, size_t bytes) {
    return counted(::write(fd, data, bytes));
}
ssize_t FileSystem::pwrite(int fd, const void* data, size_t bytes, off_t offset) {
    return counted(::pwrite(fd, data, bytes, offset));
}
int FileSystem::ftruncate(int fd, off_t bytes) {
    return ::ftruncate(fd, bytes);
}
int FileSystem::fsync(int fd) {
    return ::fsync(fd);
}
int FileSystem::rename(const std::string& from, const std::string& to) {
    return ::rename(from.c_str(), to.c_str());
}
int FileSystem::unlink(const std::string& path) {
    return ::unlink(path.c_str());
}
int FileSystem::mkdir(const std::string& path) {
    return ::mkdir(path.c_str(), 0777);
}
int FileSystem::rmdir(const std::string& path) {
    return ::rmdir(path.c_str());
}

uint64_t written_bytes() {
    return written;
}

FileSystem& file_system() {
    static FileSystem system;
    FileSystem* const other = replacement;
    return other ? *other : system;
}

ReplacedFileSystem::ReplacedFileSystem(FileSystem& used) : before_(replacement.exchange(&used)) {}

ReplacedFileSystem::~ReplacedFileSystem() {
    replacement = before_;
}

FileDescriptor::~FileDescriptor() {
    if (fd_ >= 0) file_system().close(fd_);
}

}  // namespace colonnade
