#include "engine/device/error.h"

#include <fcntl.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <system_error>

namespace colonnade {

int report_error(const char* program, const std::string& what, Exit exit) {
    // The text may quote a file of unknown origin: control characters are replaced. Only config errors have several
    // lines.
    std::string line = what;
    for (char& c : line)
        if ((static_cast<unsigned char>(c) < 0x20 && (c != '\n' || exit != Exit::config)) || c == 0x7f) c = '?';
    std::fputs(fmt::format("{}: error: {}\n", program, line).c_str(), stderr);  // which may be closed or full
    std::fflush(stderr);
    return static_cast<int>(exit);
}

/// A file that is opened while one of the descriptors 0 to 2 is closed would take its number, and what is printed.
static void open_standard_files() {
    for (int descriptor = 0; descriptor <= 2; ++descriptor)
        if (fcntl(descriptor, F_GETFD) < 0 && open("/dev/null", descriptor == 0 ? O_RDONLY : O_WRONLY) < 0) return;
}

int run_program(const char* name, const std::function<int()>& body) {
    open_standard_files();
    std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the file size limit then fails like a write to a full disk
    std::signal(SIGPIPE, SIG_IGN);  // a reader that left, such as `head`, ends no training
    try {
        return body();
    } catch (const Error& e) {
        return report_error(name, e.what(), e.exit());
    } catch (const std::filesystem::filesystem_error& e) {  // such as a name that is too long, or links in a circle
        return report_error(name, fmt::format("{}: {}", e.path1().string(), e.code().message()), Exit::storage);
    } catch (const std::system_error& e) {
        if (e.code() == std::errc::broken_pipe) return 128 + SIGPIPE;  // nobody reads what is printed
        return report_error(name, fmt::format("internal: {}", e.what()), Exit::internal);
    } catch (const std::bad_alloc&) {
        return report_error(name, "out of memory", Exit::memory);
    } catch (const std::exception& e) {
        return report_error(name, fmt::format("internal: {}", e.what()), Exit::internal);
    }
}

}  // namespace colonnade
