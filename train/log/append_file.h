#pragma once
// AppendFile: a log file that grows at its end. Every append goes to the system at once, so that a killed run loses
// nothing that it reported. (Files that must survive a power cut are written by engine/io/files.h.)

#include <string>
#include <string_view>

#include "engine/io/file_system.h"

namespace colonnade {

class AppendFile {
  public:
    /// Opens `path` at its end; creates it if it is missing. Throws Exit::storage naming path and cause, as append()
    /// does.
    explicit AppendFile(std::string path);
    void append(std::string_view bytes);
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    FileDescriptor fd_;
};

}  // namespace colonnade
