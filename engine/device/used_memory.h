#pragma once
// Memory in use now, for logs.

#include <cstddef>

namespace colonnade {

/// Bytes of physical memory that this process has.
size_t resident_memory();
/// Bytes of the current GPU's memory that anybody uses. Does not wait for its work.
size_t used_gpu_memory();

}  // namespace colonnade
