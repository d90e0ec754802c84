#include "engine/device/blas_memory.h"

#include <omp.h>
#include <pthread.h>

#include <atomic>
#include <mutex>

#include "engine/device/error.h"
#include "engine/device/host_memory.h"
#include "engine/device/human_units.h"

// OpenBLAS exports both, but declares them in no installed header. The argument says what a buffer is for, and is unused.
extern "C" {
[[gnu::weak]] void* blas_memory_alloc(int purpose);
[[gnu::weak]] void blas_memory_free(void* buffer);
}

namespace colonnade {
namespace {

/// Address space that a thread takes beside its BLAS buffer.
size_t bytes_of_thread() {
    pthread_attr_t attributes;
    size_t stack = size_t{8} << 20;
    if (pthread_attr_init(&attributes) == 0) {
        pthread_attr_getstacksize(&attributes, &stack);
        pthread_attr_destroy(&attributes);
    }
    return stack + (size_t{1} << 20);
}

/// Every thread takes a buffer, and gives it back when all have one: OpenBLAS keeps them for later calls.
void take_buffers() {
#pragma omp parallel
    {
        void* const buffer = blas_memory_alloc ? blas_memory_alloc(0) : nullptr;
#pragma omp barrier
        if (buffer) blas_memory_free(buffer);
    }
}

}  // namespace

void reserve_blas_memory() {
    static std::mutex mutex;
    static std::atomic<int> reserved = 0;
    const int threads = omp_in_parallel() ? 1 : omp_get_max_threads();
    if (threads <= reserved) return;
    const std::lock_guard lock(mutex);
    if (threads <= reserved) return;
    constexpr size_t slack = size_t{32} << 20;
    const auto more = static_cast<size_t>(threads - reserved);
    const size_t bytes = more * (blas_buffer_bytes + bytes_of_thread()) + slack;
    if (!has_address_space(bytes))
        fail(Exit::memory,
             "not enough memory: {} thread{} of OpenBLAS and OpenMP take {} of address space, and the process may have "
             "no more ({}): raise the limit, or set fewer threads",
             threads, threads == 1 ? "" : "s", human_bytes(bytes), memory_in_use());
    take_buffers();
    reserved = threads;
}

}  // namespace colonnade
