#pragma once
// Files that survive a crash. All permanent output of Colonnade goes through here: it is written under a temporary
// name, fsynced, and renamed, and then its directory is fsynced. Every system call is checked; a failure throws
// Exit::storage with the path and the errno text. A failed fsync is never retried, because the kernel may have dropped
// the pages and would report success: the file is abandoned. A file that is missing, too large or too short throws
// Exit::data.
//
// run_program() ignores SIGXFSZ, so that a file size limit is an error like a full disk and does not kill the process.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/file_system.h"
#include "engine/io/limits.h"

namespace colonnade {

/// What may be read: regular files; or also pipes and terminals, for what a user names on the command line. Nothing else
/// is opened: a FIFO would wait for a writer for ever, and a device may do anything.
enum class Readable { files, streams };

/// A file opened for reading.
class InputFile {
  public:
    explicit InputFile(const std::string& path, Readable readable = Readable::files);

    const std::string& path() const { return path_; }
    uint64_t size() const { return size_; }  ///< at the time of opening; 0 for a pipe
    /// Reads the next bytes, at most `bytes`. Returns their number, 0 at the end of the file.
    size_t read(void* into, size_t bytes);
    /// Reads exactly `bytes` bytes from `offset`. Throws Exit::data if the file is shorter.
    void read_at(uint64_t offset, void* into, size_t bytes) const;

  private:
    std::string path_;
    FileDescriptor fd_;
    uint64_t size_ = 0;
};

/// A new file, which must not exist yet, written front to back. If destroyed without close(), it is removed.
class OutputFile {
  public:
    explicit OutputFile(const std::string& path);
    ~OutputFile();
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;

    void write(const void* data, size_t bytes);
    void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
    void close();  ///< fsync, then close

  private:
    std::string path_;
    FileDescriptor fd_;
};

/// An existing file whose bytes are overwritten. Threads may write different parts of it at once.
class OverwrittenFile {
  public:
    explicit OverwrittenFile(const std::string& path);

    /// Also asks the kernel to begin to write these bytes to the disk, so that close() has less to wait for.
    void write_at(uint64_t offset, const void* data, size_t bytes) const;
    void close();  ///< fsync, then close

  private:
    std::string path_;
    FileDescriptor fd_;
};

// What lies at a path, links followed. Nothing lies at a path that no file can have, such as one with a name that is too
// long. Throws if the system refuses to say: a folder without permission, links in a circle, a disk that fails.
bool path_exists(const std::string& path);
bool is_folder(const std::string& path);
bool is_file(const std::string& path);  ///< a regular one
/// The names in a folder, sorted. Throws if it cannot be listed.
std::vector<std::string> names_in(const std::string& folder);

/// Content of the whole file. Throws Exit::data if it is larger than `limit`.
std::string read_file(const std::string& path, size_t limit = limits::file_bytes, Readable readable = Readable::files);
/// Throws Exit::data if `head`, the first bytes of a file of a model, shows what often lies in its place: a Git LFS pointer,
/// an archive, a web page.
void refuse_stand_in(const std::string& path, std::string_view head);
/// Replaces `path` atomically and durably: temporary file in the same directory, fsync, rename, fsync of the directory.
void write_file_atomically(const std::string& path, std::string_view content);

/// Commits one file at once. Write a new file temporary(), "<path>.tmp-<pid>", and fsync and close it; commit() renames
/// it to `path`, which it replaces, and fsyncs the parent. The destructor removes the temporary file if there was no
/// commit().
class FileCommit {
  public:
    explicit FileCommit(std::string path);
    ~FileCommit();
    FileCommit(const FileCommit&) = delete;
    FileCommit& operator=(const FileCommit&) = delete;
    const std::string& temporary() const { return temporary_; }
    void commit();

  private:
    std::string path_, temporary_;
    bool committed_ = false;
};

/// Commits a folder of files at once: the constructor makes "<path>.tmp-<pid>"; write files into folder(); commit()
/// fsyncs every file and folder in it, renames it to `path` (the commit point) and fsyncs the parent. The destructor
/// removes the temporary folder if there was no commit(). Throws Exit::storage if `path` exists: nothing is
/// overwritten.
class FolderCommit {
  public:
    explicit FolderCommit(std::string path);
    ~FolderCommit();
    FolderCommit(const FolderCommit&) = delete;
    FolderCommit& operator=(const FolderCommit&) = delete;
    const std::string& folder() const { return temporary_; }
    void commit();

  private:
    std::string path_, temporary_;
    bool committed_ = false;
};

/// Makes a folder and the missing ones above it. Each name is fsynced in its parent: a power cut leaves the folder, and
/// with it what is committed into it.
void make_folders(const std::string& path);
/// Renames a file. Not durable before its folders are fsynced.
void rename_path(const std::string& from, const std::string& to);
/// Deletes a file if it exists. Not durable before its folder is fsynced. Returns whether it existed.
bool remove_file(const std::string& path);
/// Deletes a file, or a folder with all that is in it, if it exists. Links are deleted, not followed.
void remove_tree(const std::string& path);
/// Deletes a folder. It is first renamed to "<path>.trash-<pid>", so that a half-deleted folder is never taken for a
/// complete one.
void remove_folder(const std::string& path);
/// fsync of a file or folder.
void sync_path(const std::string& path);
/// The folder that holds a file or folder; "." if the path does not say.
std::string parent_of(const std::string& path);
/// Writes all bytes to a descriptor.
void write_all(int fd, const std::string& path, std::string_view bytes);

}  // namespace colonnade
