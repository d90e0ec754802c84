#pragma once
// The memory of OpenBLAS, which it takes when a thread first needs it. If there is none, it waits for ever (0.3.21) or
// ends the process (later releases). So the program takes it ahead, when it can still report a lack of it.

#include <cstddef>

namespace colonnade {

/// Address space of the buffer that OpenBLAS takes for each thread; it touches a few MB of it. The size is fixed when
/// OpenBLAS is built: BUFFER_SIZE in its common_x86_64.h, common_arm64.h and so on.
#if defined(__x86_64__)
inline constexpr size_t blas_buffer_bytes = size_t{128} << 20;
#else
inline constexpr size_t blas_buffer_bytes = size_t{32} << 20;
#endif

/// Starts the OpenMP threads that the next parallel region of the calling thread has, and takes what OpenBLAS needs for
/// them. Throws Exit::memory with the figures. Cheap if this has been done for as many threads.
void reserve_blas_memory();

}  // namespace colonnade
