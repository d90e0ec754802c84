// How a program ends with an error. This stands apart from error.cpp because it sets handlers of the whole process before
// main(), which a shared library must not do to the program that loads it.

#include "engine/device/error.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>
#include <system_error>

#include "engine/device/terminal.h"

namespace colonnade {

static const char* program_name = "colonnade";
static std::atomic<int> reported_exit = -1;  ///< exit code of the last error that was printed
static thread_local bool lacked_memory = false;

int report_error(const char* program, const std::string& what, Exit exit) {
    // The text may quote a file of unknown origin: control characters are replaced. Only config errors have several
    // lines.
    std::string line = what;
    for (char& c : line)
        if ((static_cast<unsigned char>(c) < 0x20 && (c != '\n' || exit != Exit::config)) || c == 0x7f) c = '?';
    const std::string mark = has_colours(STDERR_FILENO) ? styled("error:", Style::error) : "error:";
    std::fputs(fmt::format("{}: {} {}\n", program, mark, line).c_str(), stderr);  // which may be closed or full
    std::fflush(stderr);
    return reported_exit = static_cast<int>(exit);
}

/// A file that is opened while one of the descriptors 0 to 2 is closed would take its number, and what is printed.
static void open_standard_files() {
    for (int descriptor = 0; descriptor <= 2; ++descriptor)
        if (fcntl(descriptor, F_GETFD) < 0 && open("/dev/null", descriptor == 0 ? O_RDONLY : O_WRONLY) < 0) return;
}

/// Reports the exception that is being handled.
static int report_exception(const char* name) {
    try {
        throw;
    } catch (const std::filesystem::filesystem_error&) {
    } catch (const std::system_error& e) {
        if (e.code() == std::errc::broken_pipe) return 128 + SIGPIPE;  // nobody reads what is printed
    } catch (...) {
    }
    try {
        const Error error = error_in_flight();
        return report_error(name, error.what(), error.exit());
    } catch (const std::bad_alloc&) {  // not even for the text
        char line[100];
        *fmt::format_to_n(line, sizeof line - 1, "{:.50}: error: out of memory\n", name).out = '\0';
        std::fputs(line, stderr);
        return reported_exit = static_cast<int>(Exit::memory);
    }
}

/// For an exception that nobody can catch: one that leaves a destructor, a thread or a parallel region. The last is not
/// known here.
[[noreturn]] static void on_terminate() {
    if (std::current_exception()) _exit(report_exception(program_name));
    if (lacked_memory) end_without_memory("a parallel region");
    std::abort();
}

void end_without_memory(const char* who) {
    if (reported_exit >= 0) _exit(reported_exit);  // a library lacks memory when it cleans up
    char line[200];
    const int length = std::snprintf(line, sizeof line, "%.50s: error: out of memory in %s\n", program_name, who);
    (void)!write(STDERR_FILENO, line, static_cast<size_t>(length));
    _exit(static_cast<int>(Exit::memory));
}

/// Before main(), which takes memory for its command line.
[[gnu::constructor]] static void watch_for_lack_of_memory() {
    program_name = program_invocation_short_name;
    std::set_terminate(on_terminate);
    std::set_new_handler([] {
        lacked_memory = true;
        throw std::bad_alloc();
    });
}

int run_program(const char* name, const std::function<int()>& body) {
    program_name = name;
    open_standard_files();
    std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the file size limit then fails like a write to a full disk
    std::signal(SIGPIPE, SIG_IGN);  // a reader that left, such as `head`, ends no training
    try {
        return body();
    } catch (...) {
        return report_exception(name);
    }
}

}  // namespace colonnade
