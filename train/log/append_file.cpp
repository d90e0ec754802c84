#include "train/log/append_file.h"

#include <fcntl.h>

#include "engine/io/files.h"
#include "engine/io/system_call.h"

namespace colonnade {

AppendFile::AppendFile(std::string path)
    : path_(std::move(path)),
      fd_(uninterrupted([&] { return file_system().open(path_, O_WRONLY | O_CREAT | O_APPEND); })) {
    if (fd_ < 0) refused("open for writing", path_);
}

void AppendFile::append(std::string_view bytes) {
    write_all(fd_, path_, bytes);
}

}  // namespace colonnade
