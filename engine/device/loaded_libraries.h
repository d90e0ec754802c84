#pragma once
// The shared libraries of this process. The name of a library's file has its version, even if no function returns it.

#include <string>
#include <vector>

namespace colonnade {

/// File names with links resolved, "libhdf5_serial.so.103.3.0", in the order of loading.
std::vector<std::string> loaded_libraries();

/// The address of a function in one of them; null if none has it.
void* loaded_function(const char* name);

}  // namespace colonnade
