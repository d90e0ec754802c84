#include "engine/device/error.h"

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

namespace colonnade {

int report_error(const char* program, const std::string& what, Exit exit) {
    // The text may quote a file of unknown origin: control characters are replaced. Only config errors have several
    // lines.
    std::string line = what;
    for (char& c : line)
        if ((static_cast<unsigned char>(c) < 0x20 && (c != '\n' || exit != Exit::config)) || c == 0x7f) c = '?';
    fmt::print(stderr, "{}: error: {}\n", program, line);
    std::fflush(stderr);
    return static_cast<int>(exit);
}

int run_program(const char* name, const std::function<int()>& body) {
    std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the file size limit then fails like a write to a full disk
    try {
        return body();
    } catch (const Error& e) {
        return report_error(name, e.what(), e.exit());
    } catch (const std::bad_alloc&) {
        return report_error(name, "out of memory", Exit::memory);
    } catch (const std::exception& e) {
        return report_error(name, fmt::format("internal: {}", e.what()), Exit::internal);
    }
}

}  // namespace colonnade
