#pragma once
// Files that survive a crash. Everything Colonnade writes for keeps goes through here: written under a temporary name,
// fsynced, renamed, directory fsynced. Every system call is checked; a failure is Exit::storage with path and errno
// text. A failed fsync is never tried again (the kernel may have dropped the pages and would report success): what was
// being written is abandoned. A file that is missing, too large or too short is Exit::data.
//
// run_program() ignores SIGXFSZ, so that a file size limit is an error like a full disk and not the end of the process.

#include <cstdint>
#include <string>
#include <string_view>

namespace colonnade {

/// A file opened for reading.
class InputFile {
  public:
    explicit InputFile(const std::string& path);
    ~InputFile();
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;

    const std::string& path() const { return path_; }
    uint64_t size() const { return size_; }  ///< when it was opened; 0 for a pipe
    /// The next up to `bytes` bytes; returns how many, 0 at the end.
    size_t read(void* into, size_t bytes);
    /// Exactly `bytes` bytes from `offset`; Exit::data when the file ends before.
    void read_at(uint64_t offset, void* into, size_t bytes) const;

  private:
    std::string path_;
    int fd_ = -1;
    uint64_t size_ = 0;
};

/// A new file (it must not exist), written front to back. Destroyed without close(), it is removed.
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
    int fd_ = -1;
};

/// The whole file; Exit::data when it is larger than `limit`.
std::string read_file(const std::string& path, size_t limit = size_t{1} << 30);
/// Replaces `path` atomically and durably: temporary file beside it, fsync, rename, fsync of the directory.
void write_file_atomically(const std::string& path, std::string_view content);

/// Commits a folder of files at once: the constructor makes "<path>.tmp-<pid>"; write files into folder(); commit()
/// fsyncs every file and folder in it, renames it to `path` (the commit point) and fsyncs the parent. Destroyed without
/// commit(), it removes the temporary folder. `path` must not exist yet: Exit::storage otherwise (nothing is
/// overwritten).
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
    std::string hex();  ///< ends the hash: once

  private:
    void* context_;
};

/// An exclusive lock on a folder (flock on "<folder>/.lock", holder's pid and host inside), held until destroyed or
/// until the process dies; Exit::config naming the holder when taken. A file system that has no locks counts as free.
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
