#pragma once
// What the binary logs share: numbers as bytes, and the time.

#include <chrono>
#include <string>

namespace colonnade {

template <typename T>
std::string little_endian(T value) {
    std::string bytes;
    for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
    return bytes;
}

/// Seconds since 1970.
inline double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace colonnade
