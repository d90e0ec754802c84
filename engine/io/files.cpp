#include "engine/io/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "engine/io/replace_file.h"
#include "engine/io/system_call.h"

namespace colonnade {
namespace {

// Linux has released the descriptor even if close() was interrupted.
void close_checked(FileDescriptor& fd, const std::string& path) {
    if (file_system().close(fd.release()) != 0 && errno != EINTR) refused("close", path);
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

/// The type of what lies at a path (stat(2)); 0 if nothing does.
mode_t type_of(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) return info.st_mode & S_IFMT;
    if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG) refused("look up", path);
    return 0;
}

/// Cleans up when an error is already on its way.
void try_to_remove(const std::string& path) {
    try {
        remove_tree(path);
    } catch (const Error&) {
    }
}

}  // namespace

bool path_exists(const std::string& path) {
    return type_of(path) != 0;
}

bool is_folder(const std::string& path) {
    return type_of(path) == S_IFDIR;
}

bool is_file(const std::string& path) {
    return type_of(path) == S_IFREG;
}

std::vector<std::string> names_in(const std::string& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
        names.push_back(entry->path().filename());
    if (error) fail(Exit::storage, "{}: cannot list: {}", folder, error.message());
    std::ranges::sort(names);
    return names;
}

std::string parent_of(const std::string& path) {
    const auto parent = std::filesystem::path(path).parent_path().string();
    return parent.empty() ? "." : parent;
}

void write_all(int fd, const std::string& path, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t written = uninterrupted([&] { return file_system().write(fd, bytes.data(), bytes.size()); });
        if (written < 0) refused("write", path);
        bytes.remove_prefix(static_cast<size_t>(written));
    }
}

InputFile::InputFile(const std::string& path, Readable readable) : path_(path) {
    struct stat info {};
    // Before it is opened, because to open a device may already have an effect; and after, because another process may
    // have replaced the file.
    if (::stat(path.c_str(), &info) != 0) refused("open", path, exit_of_open(errno));
    require_kind(info, path, readable);
    // O_NONBLOCK: such a process must not make us wait. Regular files ignore it.
    const int flags = O_RDONLY | O_NOCTTY | (readable == Readable::files ? O_NONBLOCK : 0);
    fd_ = FileDescriptor(uninterrupted([&] { return file_system().open(path, flags); }));
    if (fd_ < 0) refused("open", path, exit_of_open(errno));
    if (::fstat(fd_, &info) != 0) refused("read", path);
    require_kind(info, path, readable);
    size_ = static_cast<uint64_t>(info.st_size);
}

size_t InputFile::read(void* into, size_t bytes) {
    const ssize_t got = uninterrupted([&] { return file_system().read(fd_, into, bytes); });
    if (got < 0) refused("read", path_);
    return static_cast<size_t>(got);
}

void InputFile::read_at(uint64_t offset, void* into, size_t bytes) const {
    char* next = static_cast<char*>(into);
    while (bytes > 0) {
        const ssize_t got =
            uninterrupted([&] { return file_system().pread(fd_, next, bytes, static_cast<off_t>(offset)); });
        if (got < 0) refused("read", path_);
        if (got == 0) fail(Exit::data, "{}: ends at byte {}, expected {} more", path_, offset, bytes);
        next += got;
        offset += static_cast<uint64_t>(got);
        bytes -= static_cast<size_t>(got);
    }
}

OutputFile::OutputFile(const std::string& path) : path_(path) {
    fd_ = FileDescriptor(uninterrupted([&] { return file_system().open(path, O_WRONLY | O_CREAT | O_EXCL); }));
    if (fd_ < 0) refused("create", path);
}

OutputFile::~OutputFile() {
    if (fd_ < 0) return;
    file_system().close(fd_.release());
    file_system().unlink(path_);
}

void OutputFile::write(const void* data, size_t bytes) {
    write_all(fd_, path_, {static_cast<const char*>(data), bytes});
}

void OutputFile::close() {
    if (file_system().fsync(fd_) != 0) refused("fsync", path_);
    try {
        close_checked(fd_, path_);  // some file systems report a full disk only now
    } catch (const Error&) {
        try_to_remove(path_);
        throw;
    }
}

OverwrittenFile::OverwrittenFile(const std::string& path) : path_(path) {
    fd_ = FileDescriptor(uninterrupted([&] { return file_system().open(path, O_WRONLY); }));
    if (fd_ < 0) refused("open", path);
}

void OverwrittenFile::write_at(uint64_t offset, const void* data, size_t bytes) const {
    const char* next = static_cast<const char*>(data);
    for (size_t left = bytes, at = offset; left > 0;) {
        const ssize_t written =
            uninterrupted([&] { return file_system().pwrite(fd_, next, left, static_cast<off_t>(at)); });
        if (written < 0) refused("write", path_);
        next += written;
        at += static_cast<size_t>(written);
        left -= static_cast<size_t>(written);
    }
    // A hint: errors of the disk show at close().
    ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
}

void OverwrittenFile::close() {
    if (file_system().fsync(fd_) != 0) refused("fsync", path_);
    close_checked(fd_, path_);
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
    FileCommit commit(path);
    OutputFile file(commit.temporary());
    file.write(content);
    file.close();
    commit.commit();
}

void replace_file(const std::string& path, std::string_view content) {
    const std::string temporary = unused_name(path, "tmp");
    FileDescriptor fd(uninterrupted([&] { return file_system().open(temporary, O_WRONLY | O_CREAT | O_EXCL); }));
    if (fd < 0) refused("create", temporary);
    try {
        write_all(fd, temporary, content);
        close_checked(fd, temporary);
        rename_path(temporary, path);
    } catch (const Error&) {
        try_to_remove(temporary);
        throw;
    }
}

void sync_path(const std::string& path) {
    FileDescriptor fd(uninterrupted([&] { return file_system().open(path, O_RDONLY); }));
    if (fd < 0) refused("open", path);
    if (file_system().fsync(fd) != 0) refused("fsync", path);
    close_checked(fd, path);
}

FileCommit::FileCommit(std::string path) : path_(std::move(path)), temporary_(unused_name(path_, "tmp")) {}

FileCommit::~FileCommit() {
    if (!committed_) try_to_remove(temporary_);
}

void FileCommit::commit() {
    if (file_system().rename(temporary_, path_) != 0) refused("replace", path_);
    committed_ = true;
    sync_path(parent_of(path_));
}

FolderCommit::FolderCommit(std::string path) : path_(std::move(path)) {
    while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
    temporary_ = unused_name(path_, "tmp");
    struct stat info {};
    if (::lstat(path_.c_str(), &info) == 0) fail(Exit::storage, "{}: already exists, nothing is overwritten", path_);
    if (file_system().mkdir(temporary_) != 0) refused("create", temporary_);
}

FolderCommit::~FolderCommit() {
    if (!committed_) try_to_remove(temporary_);
}

void FolderCommit::commit() {
    std::error_code error;
    for (std::filesystem::recursive_directory_iterator entry(temporary_, error), end; !error && entry != end;
         entry.increment(error))
        sync_path(entry->path());
    if (error) fail(Exit::storage, "{}: cannot list: {}", temporary_, error.message());
    sync_path(temporary_);
    // rename() fails if the target is a file or a folder that is not empty.
    if (file_system().rename(temporary_, path_) != 0) refused("rename the finished folder to this name", path_);
    committed_ = true;
    sync_path(parent_of(path_));
}

void make_folders(const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) return;
    const std::string parent = parent_of(path);
    if (!std::filesystem::exists(parent, error)) make_folders(parent);
    if (file_system().mkdir(path) != 0) {
        const int refusal = errno;
        const bool made = std::filesystem::is_directory(path, error);  // by another process, at the same time
        errno = refusal == EEXIST && error ? error.value() : refusal;  // such as links in a circle
        if (refusal != EEXIST || !made) refused("create the folder", path);
    }
    sync_path(parent);
}

void rename_path(const std::string& from, const std::string& to) {
    if (file_system().rename(from, to) != 0) refused("replace", to);
}

bool remove_file(const std::string& path) {
    if (file_system().unlink(path) == 0) return true;
    if (errno != ENOENT) refused("delete", path);
    return false;
}

void remove_tree(const std::string& path) {
    struct stat info {};
    if (::lstat(path.c_str(), &info) != 0) {
        if (errno == ENOENT) return;
        refused("delete", path);
    }
    if (!S_ISDIR(info.st_mode)) {
        remove_file(path);
        return;
    }
    for (const std::string& name : names_in(path)) remove_tree(path + "/" + name);
    if (file_system().rmdir(path) != 0) refused("delete", path);
}

void remove_folder(const std::string& path) {
    const std::string trash = unused_name(path, "trash");
    if (file_system().rename(path, trash) != 0) refused("rename for deletion", path);
    sync_path(parent_of(path));  // the new name is on disk before the first file is deleted
    remove_tree(trash);
}

}  // namespace colonnade
