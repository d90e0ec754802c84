#pragma once
// A program at a terminal of its own, driven by keys.

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <vector>

namespace colonnade {

struct TerminalSize {
    unsigned short columns = 200, rows = 50;
};

class Terminal {
  public:
    using Clock = std::chrono::steady_clock;

    /// `setup` runs in the new process before the program starts.
    Terminal(const std::string& path, const std::vector<std::string>& arguments, const std::function<void()>& setup,
             TerminalSize size = {}) {
        std::vector<char*> argv = {const_cast<char*>(path.c_str())};
        for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
        argv.push_back(nullptr);
        const winsize window = window_of(size);
        std::fflush(nullptr);
        pid_ = forkpty(&terminal_, nullptr, nullptr, &window);
        if (pid_ == 0) {
            alarm(120);
            setup();
            execv(path.c_str(), argv.data());
            _exit(127);
        }
    }
    ~Terminal() {
        if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
        close(terminal_);
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    void type(const std::string& keys) const {
        EXPECT_EQ(write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
    }
    void resize(TerminalSize size) const {
        const winsize window = window_of(size);
        EXPECT_EQ(ioctl(terminal_, TIOCSWINSZ, &window), 0);
    }
    /// What the program writes next; empty if it has ended, or writes nothing until `end`.
    std::string read_some(Clock::time_point end) const {
        pollfd ready{.fd = terminal_, .events = POLLIN, .revents = 0};
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) return "";
        char bytes[4096];
        const ssize_t count = read(terminal_, bytes, sizeof bytes);
        return count > 0 ? std::string(bytes, static_cast<size_t>(count)) : "";
    }
    /// Reads until `text` has come since the last call; false after `seconds`.
    bool wait_for(const std::string& text, double seconds = 20) {
        const auto end =
            Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
        for (;;) {
            if (const size_t at = seen_.find(text, read_); at != std::string::npos)
                return read_ = at + text.size(), true;
            const std::string more = read_some(end);
            if (more.empty()) return false;
            seen_ += more;
        }
    }
    /// Everything that wait_for() has read.
    const std::string& seen() const { return seen_; }
    /// Waits for the end of the program, which writes nothing more; returns the exit code, or 128 + signal.
    int wait() {
        int status = 0;
        EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

  private:
    static winsize window_of(TerminalSize size) {
        return {.ws_row = size.rows, .ws_col = size.columns, .ws_xpixel = 0, .ws_ypixel = 0};
    }

    int terminal_ = -1;
    pid_t pid_ = -1;
    std::string seen_;
    size_t read_ = 0;
};

}  // namespace colonnade
