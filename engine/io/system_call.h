#pragma once
// System calls on files: retry when interrupted, and one error text.

#include <cerrno>
#include <cstring>
#include <string>

#include "engine/device/error.h"

namespace colonnade {

/// Throws for a failed system call: "path: cannot action: errno text".
[[noreturn]] inline void refused(const char* action, const std::string& path, Exit exit = Exit::storage) {
    fail(exit, "{}: cannot {}: {}", path, action, std::strerror(errno));
}

/// What a failed open means: the path is wrong (Exit::data), or the disk or the system refuses (Exit::storage).
inline Exit exit_of_open(int error) {
    for (const int wrong : {ENOENT, ENOTDIR, EISDIR, EACCES, EPERM, ELOOP, ENAMETOOLONG, ENXIO, ENODEV, EINVAL})
        if (error == wrong) return Exit::data;
    return Exit::storage;
}

template <typename Call>
auto uninterrupted(Call call) {
    auto result = call();
    while (result == -1 && errno == EINTR) result = call();
    return result;
}

}  // namespace colonnade
