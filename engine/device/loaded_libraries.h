#pragma once
// The shared libraries of this process. The name of a library's file has its version, even if no function returns it.

#include <filesystem>
#include <vector>

namespace colonnade {

/// Their files with links resolved, "/usr/lib/x86_64-linux-gnu/libhdf5_serial.so.103.3.0", in the order of loading.
std::vector<std::filesystem::path> loaded_libraries();

}  // namespace colonnade
