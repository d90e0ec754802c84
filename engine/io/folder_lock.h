#pragma once
// FolderLock: one process at a time uses a folder.

#include <string>

namespace colonnade {

/// An exclusive lock on a folder: flock on "<folder>/.lock", which names the holder's pid and host. It is held until
/// the object is destroyed or the process dies. Throws Exit::config, naming the holder, if the folder is locked. A file
/// system without locks counts as unlocked.
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
