#pragma once
// Errors that reach the user. One Error is one clear line: what was found, where, what was expected. Each carries the
// exit code with which a program ends, so that scripts can tell a bad config from a full disk.

#include <fmt/format.h>

#include <functional>
#include <stdexcept>
#include <string>

namespace colonnade {

/// Process exit codes, the same for every program.
enum class Exit : int {
    ok = 0,
    config = 2,    ///< configuration or usage
    data = 3,      ///< data, tokenizer or model file
    numerics = 4,  ///< NaN or Inf where a number was needed
    peer = 5,      ///< another rank or the device was lost
    storage = 7,   ///< the disk refused a write, a read or a rename
    memory = 8,    ///< not enough memory
    internal = 9,  ///< a broken promise between two parts of Colonnade
};

class Error : public std::runtime_error {
  public:
    Error(Exit exit, const std::string& message) : std::runtime_error(message), exit_(exit) {}
    Exit exit() const { return exit_; }

  private:
    Exit exit_;
};

/// Throws an Error: fail(Exit::data, "{}:{}: no such role '{}'", path, line, role).
template <typename... Args>
[[noreturn]] void fail(Exit exit, fmt::format_string<Args...> format, Args&&... args) {
    throw Error(exit, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Exit::internal unless `held`: for contracts between parts, never for user input.
template <typename... Args>
void require(bool held, fmt::format_string<Args...> format, Args&&... args) {
    if (!held) fail(Exit::internal, format, std::forward<Args>(args)...);
}

/// Prints "program: error: ..." as one line on stderr and returns the exit code.
int report_error(const char* program, const std::string& what, Exit exit);

/// The frame around every main: runs `body`, turns any exception into one line on stderr ("name: error: ...") and
/// returns the exit code.
int run_program(const char* name, const std::function<int()>& body);

}  // namespace colonnade
