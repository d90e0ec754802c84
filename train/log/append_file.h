#pragma once
// A log file that grows at its end and is handed to the system after every append, so that a killed run loses nothing
// that it reported. (What must survive a power cut goes through engine/io/files.h.)

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace colonnade {

class AppendFile {
  public:
    /// Opens `path` at its end; made where missing. Throws Exit::storage naming path and cause, as append() does.
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
