#pragma once
// Runs programs in child processes and captures their output and exit code.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/paths.h"

namespace colonnade {

/// The whole content of a file.
inline std::string content_of(FILE* file) {
    std::string text;
    std::rewind(file);
    for (int c; (c = std::fgetc(file)) != EOF;) text.push_back(static_cast<char>(c));
    return text;
}

/// The path of a program in PATH; empty if it is not there.
inline std::string program_in_path(const std::string& name) {
    const char* const path = std::getenv("PATH");
    std::istringstream folders(path ? path : "");
    for (std::string folder; std::getline(folders, folder, ':');)
        if (const std::string file = folder + "/" + name; access(file.c_str(), X_OK) == 0) return file;
    return "";
}

/// A running program: one of ours, given by name, or any other, given by path.
class Program {
  public:
    struct Result {
        int exit = -1;  ///< exit code, or 128 + signal
        std::string out, err;
    };
    /// `setup` runs in the new process before the program starts.
    Program(const std::string& name, const std::vector<std::string>& arguments,
            const std::function<void()>& setup = {}) {
        int ends[2];
        EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
        // A pipe of one page, so that the program cannot print far ahead of the lines that were read.
        EXPECT_GE(fcntl(ends[0], F_SETPIPE_SZ, 4096), 4096);
        err_ = fdopen(ends[0], "r");
        const std::string path = name.starts_with('/') ? name : program_path(name);
        std::vector<char*> argv = {const_cast<char*>(path.c_str())};
        for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
        argv.push_back(nullptr);
        std::fflush(nullptr);
        pid_ = fork();
        if (pid_ == 0) {
            dup2(open("/dev/null", O_RDONLY), 0);
            dup2(fileno(out_), 1);
            dup2(ends[1], 2);
            alarm(120);
            if (setup) setup();
            execv(path.c_str(), argv.data());
            _exit(127);
        }
        close(ends[1]);
    }
    ~Program() {
        if (pid_ > 0) send(SIGKILL), wait();
        std::fclose(err_);
        std::fclose(out_);
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    /// Reads the next line of stderr. Returns false at the end.
    bool read_line(std::string& line) {
        line.clear();
        for (int c; (c = std::fgetc(err_)) != EOF;) {
            seen_.push_back(static_cast<char>(c));
            if (c == '\n') return true;
            line.push_back(static_cast<char>(c));
        }
        return !line.empty();
    }
    /// Reads stderr up to the `count`-th line that starts with `start`. Returns false if stderr ends before.
    bool read_until(const std::string& start, int count = 1) {
        std::string line;
        while (count > 0 && read_line(line)) count -= line.starts_with(start);
        return count == 0;
    }
    void send(int signal) const { kill(pid_, signal); }
    pid_t pid() const { return pid_; }

    Result wait() {
        std::string line;
        while (read_line(line)) {
        }
        int status = 0;
        EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
        pid_ = -1;
        return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), content_of(out_), seen_};
    }

  private:
    FILE* out_ = std::tmpfile();
    FILE* err_ = nullptr;
    pid_t pid_ = -1;
    std::string seen_;
};

inline Program::Result run(const std::string& program, const std::vector<std::string>& arguments,
                           const std::function<void()>& setup = {}) {
    return Program(program, arguments, setup).wait();
}

/// The name of the test program that is running: a test may start another test of it in a process of its own.
inline std::string this_program() {
    return std::filesystem::read_symlink("/proc/self/exe").filename();
}
/// Arguments of a test program that start a test whose suite begins with DISABLED_.
inline std::vector<std::string> arguments_for(const std::string& disabled_test) {
    return {"--gtest_also_run_disabled_tests", "--gtest_color=no", "--gtest_filter=" + disabled_test};
}

}  // namespace colonnade
