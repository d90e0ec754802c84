#pragma once
// Errors that reach the user. An Error is one clear line: where, what was found, what was expected. It carries the exit
// code of the program, so that scripts can distinguish a bad config from a full disk.

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
    numerics = 4,  ///< NaN or Inf instead of a finite number
    peer = 5,      ///< another rank or the device was lost
    storage = 7,   ///< the disk refused a write, a read or a rename
    memory = 8,    ///< not enough memory
    internal = 9,  ///< one part of Colonnade broke the contract of another
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

/// Throws Exit::internal unless `held`: for contracts between parts of Colonnade, never for user input. The message is
/// formatted only on failure, so pass values (a Tensor, a DType) rather than texts made of them.
template <typename... Args>
void require(bool held, fmt::format_string<Args...> format, Args&&... args) {
    if (!held) fail(Exit::internal, format, std::forward<Args>(args)...);
}

/// What the exception that is being handled means to the user: an Error as it is, a lack of memory or of threads as
/// Exit::memory with figures, an error of std::filesystem as Exit::storage, any other as Exit::internal.
Error error_in_flight();

/// Ends the process with Exit::memory and one line: for libraries in C that cannot go on without memory, and that no
/// exception may pass through. `who` lacks it. After an error was printed, with the exit code of that one and no line.
[[noreturn]] void end_without_memory(const char* who);

/// Prints "program: error: ..." as one line on stderr and returns the exit code.
int report_error(const char* program, const std::string& what, Exit exit);

/// Runs the body of a main(): turns any exception into one line on stderr ("name: error: ...") and returns the exit
/// code. Opens descriptors 0 to 2 if they are closed, and ignores SIGPIPE and SIGXFSZ. An exception that leaves a
/// destructor, a thread or a parallel region is one line and its exit code, too.
int run_program(const char* name, const std::function<int()>& body);

}  // namespace colonnade
