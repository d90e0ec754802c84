#include "train/log/append_file.h"

#include <cerrno>
#include <cstring>

#include "engine/device/error.h"

namespace colonnade {

AppendFile::AppendFile(std::string path) : path_(std::move(path)), file_(std::fopen(path_.c_str(), "ab")) {
    if (!file_) fail(Exit::storage, "{}: cannot be opened for writing: {}", path_, std::strerror(errno));
}

void AppendFile::append(std::string_view bytes) {
    const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size();
    if (!written || std::fflush(file_.get()) != 0)
        fail(Exit::storage, "{}: cannot be written: {}", path_, std::strerror(errno));
}

}  // namespace colonnade
