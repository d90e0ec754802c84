#pragma once
// AppendFile: a log file that grows at its end. Every append is flushed to the system, so that a killed run loses
// nothing that it reported. (Files that must survive a power cut are written by engine/io/files.h.)

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace colonnade {

class AppendFile {
  public:
    /// Opens `path` at its end; creates it if it is missing. Throws Exit::storage naming path and cause, as append()
    /// does.
    explicit AppendFile(std::string path);
    void append(std::string_view bytes);
    const std::string& path() const { return path_; }

  private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::string path_;
    std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace colonnade
