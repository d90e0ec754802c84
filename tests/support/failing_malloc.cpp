// A library for LD_PRELOAD that makes allocations of a program fail. Counts malloc(), calloc(), realloc() and
// posix_memalign() (operator new calls malloc) from the begin of main() on, in all threads and children together.
//
//     COLONNADE_FAIL_ALLOCATION=N      allocation N fails, from 1
//     COLONNADE_FAIL_ALLOCATION=N-     and all that follow, 1000 of them
//     COLONNADE_COUNT_ALLOCATIONS=F    at the end the file F gets the count
//
// Needs glibc.

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {

std::atomic<long> count = 0;
long first = 0, last = 0;
bool in_main = false;
int (*program)(int, char**, char**) = nullptr;

bool fails() {
    if (!in_main) return false;
    const long number = ++count;
    if (number < first || number > last) return false;
    errno = ENOMEM;
    return true;
}

int counted_main(int argc, char** argv, char** environment) {
    in_main = true;
    return program(argc, argv, environment);
}

[[gnu::destructor]] void write_count() {
    in_main = false;
    const char* const path = std::getenv("COLONNADE_COUNT_ALLOCATIONS");
    if (!path) return;
    if (FILE* const file = std::fopen(path, "w")) {
        std::fprintf(file, "%ld\n", count.load());
        std::fclose(file);
    }
}

}  // namespace

extern "C" {

void* malloc(size_t bytes) {
    return fails() ? nullptr : __libc_malloc(bytes);
}
void* calloc(size_t count_, size_t bytes) {
    return fails() ? nullptr : __libc_calloc(count_, bytes);
}
void* realloc(void* old, size_t bytes) {
    return fails() ? nullptr : __libc_realloc(old, bytes);
}
int posix_memalign(void** into, size_t alignment, size_t bytes) {
    void* const memory = fails() ? nullptr : __libc_memalign(alignment, bytes);
    if (!memory) return ENOMEM;
    *into = memory;
    return 0;
}
void* aligned_alloc(size_t alignment, size_t bytes) {
    return fails() ? nullptr : __libc_memalign(alignment, bytes);
}

int __libc_start_main(int (*main)(int, char**, char**), int argc, char** argv, void (*begin)(), void (*end)(),
                      void (*end_of_loader)(), void* stack) {
    program = main;
    if (const char* const which = std::getenv("COLONNADE_FAIL_ALLOCATION")) {
        first = std::atol(which);
        last = std::strchr(which, '-') ? first + 1000 : first;
    }
    const auto start = reinterpret_cast<decltype(&__libc_start_main)>(dlsym(RTLD_NEXT, "__libc_start_main"));
    return start(counted_main, argc, argv, begin, end, end_of_loader, stack);
}
}
