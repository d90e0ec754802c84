#pragma once
// A program at a terminal of its own, driven by keys.

#include <poll.h>
#include <pty.h>

#include <chrono>
#include <csignal>

#include "tests/support/program.h"

namespace colonnade {

class Terminal {
  public:
    /// `setup` runs in the new process before the program starts.
    Terminal(const std::string& path, const std::vector<std::string>& arguments, const std::function<void()>& setup) {
        std::vector<char*> argv = {const_cast<char*>(path.c_str())};
        for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
        argv.push_back(nullptr);
        const winsize size{.ws_row = 50, .ws_col = 200, .ws_xpixel = 0, .ws_ypixel = 0};
        std::fflush(nullptr);
        pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
        if (pid_ == 0) {
            alarm(120);
            setup();
            execv(path.c_str(), argv.data());
            _exit(127);
        }
    }
    ~Terminal() {
        close(terminal_);
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    void type(const std::string& keys) const {
        EXPECT_EQ(write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
    }
    /// Reads until `text` has come since the last call; false after `seconds`.
    bool wait_for(const std::string& text, double seconds = 20) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
        for (char buffer[4096];;) {
            if (const size_t at = seen_.find(text, read_); at != std::string::npos)
                return read_ = at + text.size(), true;
            pollfd ready{.fd = terminal_, .events = POLLIN, .revents = 0};
            const auto left =
                std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
            if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) <= 0) return false;
            const ssize_t count = read(terminal_, buffer, sizeof buffer);
            if (count <= 0) return false;
            seen_.append(buffer, static_cast<size_t>(count));
        }
    }
    /// Everything that it has shown.
    const std::string& seen() const { return seen_; }

  private:
    int terminal_ = -1;
    pid_t pid_ = -1;
    std::string seen_;
    size_t read_ = 0;
};

}  // namespace colonnade
