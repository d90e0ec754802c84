#include "train/log/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "engine/io/files.h"
#include "engine/io/system_call.h"

namespace colonnade {

AppendFile::AppendFile(std::string path)
    : path_(std::move(path)),  // O_NONBLOCK: the reader of a FIFO is not waited for
      fd_(uninterrupted([&] { return file_system().open(path_, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK); })) {
    if (fd_ < 0) refused("open for writing", path_);
    struct stat status {};
    if (::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode)) return;
    file_system().close(fd_);
    fail(Exit::storage, "{}: cannot be opened for writing: it is not a regular file", path_);
}

void AppendFile::append(std::string_view bytes) {
    write_all(fd_, path_, bytes);
}

}  // namespace colonnade
