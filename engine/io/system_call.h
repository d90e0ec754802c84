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

template <typename Call>
auto uninterrupted(Call call) {
    auto result = call();
    while (result == -1 && errno == EINTR) result = call();
    return result;
}

}  // namespace colonnade
