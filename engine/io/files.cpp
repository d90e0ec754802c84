#include "engine/io/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <utility>

#include "engine/io/system_call.h"

namespace colonnade {
namespace {

void write_all(int fd, const std::string& path, const void* data, size_t bytes) {
    const char* next = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t written = uninterrupted([&] { return ::write(fd, next, bytes); });
        if (written < 0) refused("write", path);
        next += written;
        bytes -= static_cast<size_t>(written);
    }
}

// Linux has released the descriptor even if close() was interrupted.
void close_checked(int fd, const std::string& path) {
    if (::close(fd) != 0 && errno != EINTR) refused("close", path);
}

std::string parent_of(const std::string& path) {
    const auto parent = std::filesystem::path(path).parent_path().string();
    return parent.empty() ? "." : parent;
}

// "<path>.<kind>-<pid>", with a number if a dead process with the same pid has left one: never a name in use.
std::string unused_name(const std::string& path, const char* kind) {
    const std::string first = fmt::format("{}.{}-{}", path, kind, ::getpid());
    std::string name = first;
    struct stat info {};
    for (int n = 1; ::lstat(name.c_str(), &info) == 0; ++n) name = fmt::format("{}-{}", first, n);
    return name;
}

/// What stands in place of a regular file; nullptr if it is one.
const char* other_kind(mode_t mode) {
    if (S_ISFIFO(mode)) return "a FIFO (named pipe)";
    if (S_ISCHR(mode)) return "a character device";
    if (S_ISBLK(mode)) return "a block device";
    if (S_ISSOCK(mode)) return "a socket";
    return S_ISREG(mode) ? nullptr : "of an unknown kind";
}

void require_kind(const struct stat& info, const std::string& path, Readable readable) {
    const mode_t mode = info.st_mode;
    if (S_ISDIR(mode)) {
        errno = EISDIR;
        refused("read", path, Exit::data);
    }
    if (readable == Readable::streams && (S_ISFIFO(mode) || S_ISCHR(mode))) return;
    if (const char* kind = other_kind(mode))
        fail(Exit::data, "{}: is {}, expected a file: write its content to one", path, kind);
}

}  // namespace

InputFile::InputFile(const std::string& path, Readable readable) : path_(path) {
    struct stat info {};
    // Before it is opened, because to open a device may already have an effect; and after, because another process may
    // have replaced the file.
    if (::stat(path.c_str(), &info) != 0) refused("open", path, Exit::data);
    require_kind(info, path, readable);
    // O_NONBLOCK: such a process must not make us wait. Regular files ignore it.
    const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | (readable == Readable::files ? O_NONBLOCK : 0);
    fd_ = uninterrupted([&] { return ::open(path.c_str(), flags); });
    if (fd_ < 0) refused("open", path, Exit::data);
    try {
        if (::fstat(fd_, &info) != 0) refused("read", path, Exit::data);
        require_kind(info, path, readable);
    } catch (...) {
        ::close(fd_);
        throw;
    }
    size_ = static_cast<uint64_t>(info.st_size);
}

InputFile::~InputFile() {
    ::close(fd_);
}

size_t InputFile::read(void* into, size_t bytes) {
    const ssize_t got = uninterrupted([&] { return ::read(fd_, into, bytes); });
    if (got < 0) refused("read", path_);
    return static_cast<size_t>(got);
}

void InputFile::read_at(uint64_t offset, void* into, size_t bytes) const {
    char* next = static_cast<char*>(into);
    while (bytes > 0) {
        const ssize_t got = uninterrupted([&] { return ::pread(fd_, next, bytes, static_cast<off_t>(offset)); });
        if (got < 0) refused("read", path_);
        if (got == 0) fail(Exit::data, "{}: ends at byte {}, expected {} more", path_, offset, bytes);
        next += got;
        offset += static_cast<uint64_t>(got);
        bytes -= static_cast<size_t>(got);
    }
}

OutputFile::OutputFile(const std::string& path) : path_(path) {
    fd_ = uninterrupted([&] { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
    if (fd_ < 0) refused("create", path);
}

OutputFile::~OutputFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(path_.c_str());
}

void OutputFile::write(const void* data, size_t bytes) {
    write_all(fd_, path_, data, bytes);
}

void OutputFile::close() {
    if (::fsync(fd_) != 0) refused("fsync", path_);
    // Some file systems report a full disk only now.
    if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) {
        const int error = errno;
        ::unlink(path_.c_str());
        errno = error;
        refused("close", path_);
    }
}

OverwrittenFile::OverwrittenFile(const std::string& path) : path_(path) {
    fd_ = uninterrupted([&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC); });
    if (fd_ < 0) refused("open", path);
}

OverwrittenFile::~OverwrittenFile() {
    if (fd_ >= 0) ::close(fd_);
}

void OverwrittenFile::write_at(uint64_t offset, const void* data, size_t bytes) const {
    const char* next = static_cast<const char*>(data);
    for (size_t left = bytes, at = offset; left > 0;) {
        const ssize_t written = uninterrupted([&] { return ::pwrite(fd_, next, left, static_cast<off_t>(at)); });
        if (written < 0) refused("write", path_);
        next += written;
        at += static_cast<size_t>(written);
        left -= static_cast<size_t>(written);
    }
    // A hint: errors of the disk show at close().
    ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
}

void OverwrittenFile::close() {
    if (::fsync(fd_) != 0) refused("fsync", path_);
    close_checked(std::exchange(fd_, -1), path_);
}

void refuse_stand_in(const std::string& path, std::string_view head) {
    const std::pair<std::string_view, const char*> known[] = {
        {"version https://git-lfs", "a Git LFS pointer, not the file itself; get it: git lfs pull"},
        {"\x1F\x8B", "compressed by gzip; unpack it"},
        {"\x28\xB5\x2F\xFD", "compressed by zstd; unpack it"},
        {"PK\x03\x04", "a zip archive; unpack it"},
        {"<!DOCTYPE", "a web page, perhaps an error in place of a download; download the file again"},
        {"<html", "a web page, perhaps an error in place of a download; download the file again"},
    };
    for (const auto& [start, what] : known)
        if (head.starts_with(start)) fail(Exit::data, "{}: {}", path, what);
}

std::string read_file(const std::string& path, size_t limit, Readable readable) {
    InputFile file(path, readable);
    const auto check = [&](uint64_t bytes) {
        if (bytes > limit) fail(Exit::data, "{}: {} bytes or more, expected at most {}", path, bytes, limit);
    };
    check(file.size());
    // Reads to the end, whatever the size is: a pipe has none.
    std::string content(file.size() + 1, '\0');
    size_t filled = 0;
    while (const size_t got = file.read(content.data() + filled, content.size() - filled)) {
        check(filled += got);
        if (filled == content.size()) content.resize(2 * filled);
    }
    content.resize(filled);
    return content;
}

void write_file_atomically(const std::string& path, std::string_view content) {
    const std::string temporary = unused_name(path, "tmp");
    OutputFile file(temporary);
    file.write(content);
    file.close();
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
        const int error = errno;
        ::unlink(temporary.c_str());
        errno = error;
        refused("replace", path);
    }
    sync_path(parent_of(path));
}

void sync_path(const std::string& path) {
    const int fd = uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); });
    if (fd < 0) refused("open", path);
    if (::fsync(fd) != 0) {
        const int error = errno;
        ::close(fd);
        errno = error;
        refused("fsync", path);
    }
    close_checked(fd, path);
}

FolderCommit::FolderCommit(std::string path) : path_(std::move(path)) {
    while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
    temporary_ = unused_name(path_, "tmp");
    struct stat info {};
    if (::lstat(path_.c_str(), &info) == 0) fail(Exit::storage, "{}: already exists, nothing is overwritten", path_);
    if (::mkdir(temporary_.c_str(), 0777) != 0) refused("create", temporary_);
}

FolderCommit::~FolderCommit() {
    std::error_code ignored;
    if (!committed_) std::filesystem::remove_all(temporary_, ignored);
}

void FolderCommit::commit() {
    std::error_code error;
    for (std::filesystem::recursive_directory_iterator entry(temporary_, error), end; !error && entry != end;
         entry.increment(error))
        sync_path(entry->path());
    if (error) fail(Exit::storage, "{}: cannot list: {}", temporary_, error.message());
    sync_path(temporary_);
    // rename() fails if the target is a file or a folder that is not empty.
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) refused("rename the finished folder to this name", path_);
    committed_ = true;
    sync_path(parent_of(path_));
}

void remove_folder(const std::string& path) {
    const std::string trash = unused_name(path, "trash");
    if (::rename(path.c_str(), trash.c_str()) != 0) refused("rename for deletion", path);
    sync_path(parent_of(path));  // the new name is on disk before the first file is deleted
    std::error_code error;
    std::filesystem::remove_all(trash, error);
    if (error) fail(Exit::storage, "{}: cannot delete: {}", trash, error.message());
}

}  // namespace colonnade
