#pragma once
// Files that survive a crash. Everything Colonnade writes for keeps goes through here: written under a temporary name,
// fsynced, renamed, directory fsynced. Every system call is checked; a failure is Exit::storage with path and errno text.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace colonnade {

/// The whole file; Exit::data when it cannot be read or is larger than `limit`.
std::string read_file(const std::string& path, size_t limit = size_t{1} << 30);
/// Replaces `path` atomically and durably: temporary file beside it, fsync, rename, fsync of the directory.
void write_file_atomically(const std::string& path, std::string_view content);

/// Commits a folder of files at once: create() makes "<path>.tmp-<pid>"; write files into folder(); commit() fsyncs every
/// file and the folder, renames it to `path` and fsyncs the parent. Destroyed without commit(), it removes the temporary folder.
/// `path` must not exist yet: Exit::storage otherwise (nothing is overwritten).
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

/// Renames to "<path>.trash-<pid>" first, so that a half-deleted folder is never taken for a whole one, then deletes.
void remove_folder(const std::string& path);
/// fsync of a file or folder.
void sync_path(const std::string& path);

/// Hex SHA-256 (what sha256sum prints).
std::string sha256_file(const std::string& path);
std::string sha256(std::string_view bytes);
/// For hashing in pieces.
class Sha256 {
  public:
    Sha256();
    ~Sha256();
    Sha256(const Sha256&) = delete;
    Sha256& operator=(const Sha256&) = delete;
    void update(const void* data, size_t bytes);
    std::string hex();

  private:
    void* context_;
};

/// An exclusive lock on a folder (flock on "<folder>/.lock", holder's pid inside); Exit::config naming the holder when taken.
class FolderLock {
  public:
    explicit FolderLock(const std::string& folder);
    ~FolderLock();
    FolderLock(const FolderLock&) = delete;
    FolderLock& operator=(const FolderLock&) = delete;

  private:
    int fd_ = -1;
};

}  // namespace colonnade
