#include "train/log/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/device/error.h"

namespace colonnade {

/// Without waiting for the reader of a FIFO. Null with errno set, if it is no regular file.
static std::FILE* open_at_end(const std::string& path) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (fd < 0) return nullptr;
    struct stat status {};
    const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    std::FILE* const file = regular ? ::fdopen(fd, "ab") : nullptr;
    if (!file) {
        ::close(fd);
        if (!regular) errno = EINVAL;
    }
    return file;
}

AppendFile::AppendFile(std::string path) : path_(std::move(path)), file_(open_at_end(path_)) {
    if (!file_) fail(Exit::storage, "{}: cannot be opened for writing: {}", path_, std::strerror(errno));
}

void AppendFile::append(std::string_view bytes) {
    const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size();
    if (!written || std::fflush(file_.get()) != 0)
        fail(Exit::storage, "{}: cannot be written: {}", path_, std::strerror(errno));
}

}  // namespace colonnade
