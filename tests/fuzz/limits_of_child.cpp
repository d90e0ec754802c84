#include "tests/fuzz/limits_of_child.h"

#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fstream>

extern "C" {  // of AddressSanitizer's runtime, if the program has it
__attribute__((weak)) int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t),
                                                                    void (*)(const volatile void*));
__attribute__((weak)) size_t __sanitizer_get_current_allocated_bytes();
__attribute__((no_sanitize("address", "undefined"))) const char* __asan_default_options() {
    return "handle_abort=1:quarantine_size_mb=8:detect_leaks=0:allocator_may_return_null=0";
}
}

namespace colonnade {
namespace {

constexpr size_t most = size_t{256} << 20, granularity = size_t{1} << 20;
size_t limit = 0, unseen = 0;

/// Adding up all that is in use takes time, so it is done after every MiB.
void count_allocation(const volatile void*, size_t bytes) {
    unseen += bytes;
    if (unseen < granularity) return;
    unseen = 0;
    if (__sanitizer_get_current_allocated_bytes() <= limit) return;
    constexpr char text[] = "the input takes more than 256 MB of memory\n";
    [[maybe_unused]] const auto written = write(2, text, sizeof text - 1);
    abort();
}
void count_release(const volatile void*) {}

rlim_t address_space() {
    std::ifstream file("/proc/self/statm");
    rlim_t pages = 0;
    file >> pages;
    return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

bool under_sanitizer() {
    return __sanitizer_install_malloc_and_free_hooks != nullptr;
}

void limit_memory() {
    if (under_sanitizer()) {  // whose shadow takes terabytes of address space
        const bool first = limit == 0;
        limit = __sanitizer_get_current_allocated_bytes() + most;
        if (first) __sanitizer_install_malloc_and_free_hooks(count_allocation, count_release);
        return;
    }
    const rlimit memory{address_space() + most, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &memory);
}

void begin_time() {
    const itimerval processor{{0, 0}, {under_sanitizer() ? 180 : 10, 0}};
    setitimer(ITIMER_PROF, &processor, nullptr);
    alarm(600);
}

void end_time() {
    constexpr itimerval none{};
    setitimer(ITIMER_PROF, &none, nullptr);
    alarm(0);
}

}  // namespace colonnade
