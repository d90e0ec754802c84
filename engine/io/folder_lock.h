#pragma once
// Who uses a folder: one process alone (FolderLock), or several that write files under temporary names
// (SharedFolder). Both sweep what dead processes have left.

#include <span>
#include <string>
#include <string_view>

#include "engine/io/file_system.h"

namespace colonnade {

/// An exclusive lock on a folder: flock on "<folder>/.lock", which names the holder's pid and host. It is held until
/// the object is destroyed or the process dies. Throws Exit::config, naming the holder, if the folder is locked. A file
/// system without locks counts as unlocked.
class FolderLock {
  public:
    explicit FolderLock(const std::string& folder);

  private:
    FileDescriptor fd_;
};

/// Deletes the files and folders of `folder` under temporary names of engine/io/files.h, "<name>.tmp-<pid>" and
/// "<name>.trash-<pid>", whose name begins with one of `stems`. Only the holder of a FolderLock may call it.
void sweep_folder(const std::string& folder, std::span<const std::string_view> stems);

/// Tells other processes that this one writes into a folder: a shared flock on the folder itself. If no process
/// has one, the constructor first deletes such leftovers of processes that do not run on this host any more. A folder
/// that cannot be locked or swept stays as it is.
class SharedFolder {
  public:
    SharedFolder(const std::string& folder, std::span<const std::string_view> stems);

  private:
    FileDescriptor fd_;
};

}  // namespace colonnade
