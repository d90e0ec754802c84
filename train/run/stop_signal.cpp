#include "train/run/stop_signal.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <iterator>

#include "engine/device/terminal.h"

namespace colonnade {
namespace {

constexpr size_t longest_answer = 500;

// What a signal handler uses: static variables, written and read without a lock.
std::atomic<int> received_signal = 0;
std::atomic<int64_t> received_at = 0, grace_milliseconds = 0;
std::atomic<bool> answers = false, on_terminal = false;
std::atomic<const char*> first_answer = nullptr;
std::atomic<int64_t> first_until = 0;  // milliseconds of the clock; 0: not known
// answer_second() fills the one that is not current.
char second_answers[2][longest_answer];
std::atomic<size_t> second_lengths[2], current_second = 0;
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);

constexpr int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGHUP};
struct sigaction old_actions[std::size(signals)];

int64_t now() {  // milliseconds
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/// Text that a signal handler may compose and write: without memory from the heap, without stdio.
class HandlerLine {
  public:
    HandlerLine() {
        if (on_terminal) add("\r\x1b[K");  // over the progress line
    }
    void add(std::string_view text) {
        const size_t bytes = std::min(text.size(), sizeof text_ - 1 - size_);
        std::copy_n(text.data(), bytes, text_ + size_);
        size_ += bytes;
    }
    /// "53 s", "2m 05s", "1h 02m".
    void add_duration(int64_t seconds) {
        if (seconds < 60) return add_number(seconds), add(" s");
        const bool hours = seconds >= 3600;
        const int64_t unit = hours ? 3600 : 60, rest = seconds % unit / (unit / 60);
        add_number(seconds / unit);
        add(hours ? "h " : "m ");
        if (rest < 10) add("0");
        add_number(rest);
        add(hours ? "m" : "s");
    }
    /// A terminal that is stopped (Ctrl-S) does not hold up the handler.
    void write() {
        text_[size_++] = '\n';
        pollfd ready{STDERR_FILENO, POLLOUT, 0};
        if (poll(&ready, 1, 0) != 1) return;
        [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text_, size_);
    }

  private:
    void add_number(int64_t number) {
        char digits[20];
        size_t begin = sizeof digits;
        do digits[--begin] = static_cast<char>('0' + number % 10);
        while (number /= 10);
        add({digits + begin, sizeof digits - begin});
    }
    char text_[longest_answer + 100];
    size_t size_ = 0;
};

void tell_first(int signal) {
    const char* const answer = first_answer;
    if (!answers || !answer) return;
    HandlerLine line;
    if (signal != SIGINT) {
        line.add(StopSignal::name(signal));
        line.add(": ");
    }
    line.add(answer);
    if (const int64_t seconds = (first_until - now() + 500) / 1000; seconds > 0) {
        line.add(" (about ");
        line.add_duration(seconds);
        line.add(")");
    }
    if (signal == SIGINT) line.add("; Ctrl-C again stops unsaved");
    line.write();
}

void tell_second() {
    if (!answers) return;
    const size_t current = current_second;
    HandlerLine line;
    line.add({second_answers[current], second_lengths[current]});
    line.write();
}

void on_signal(int signal) {
    const int error = errno;
    int none = 0;
    if (received_signal.compare_exchange_strong(none, signal)) {
        received_at = now();
        tell_first(signal);
    } else if (now() - received_at >= grace_milliseconds) {
        tell_second();
        _exit(128 + signal);
    }
    errno = error;
}

}  // namespace

StopSignal::StopSignal(Options options) {
    received_signal = 0;
    grace_milliseconds = 1000 * options.grace;
    answers = options.answers;
    on_terminal = is_terminal(STDERR_FILENO);
    first_answer = nullptr;
    answer_second("stopped at once");
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (size_t i = 0; i < std::size(signals); ++i) {
        sigaction(signals[i], &action, &old_actions[i]);
        if (signals[i] == SIGHUP && old_actions[i].sa_handler == SIG_IGN)  // nohup
            sigaction(SIGHUP, &old_actions[i], nullptr);
    }
}

StopSignal::~StopSignal() {
    for (size_t i = 0; i < std::size(signals); ++i) sigaction(signals[i], &old_actions[i], nullptr);
}

int StopSignal::number() {
    return received_signal;
}

void StopSignal::answer_first(const char* answer, double seconds) {
    first_until = seconds > 0 ? now() + static_cast<int64_t>(1000 * std::min(seconds, 1e9)) : 0;
    first_answer = answer;
}

void StopSignal::answer_second(std::string_view answer) {
    const size_t other = 1 - current_second, bytes = std::min(answer.size(), longest_answer);
    std::copy_n(answer.data(), bytes, second_answers[other]);
    second_lengths[other] = bytes;
    current_second = other;
}

const char* StopSignal::name(int number) {
    switch (number) {
        case SIGINT:
            return "SIGINT";
        case SIGTERM:
            return "SIGTERM";
        case SIGUSR1:
            return "SIGUSR1";
        case SIGHUP:
            return "SIGHUP";
        default:
            return nullptr;
    }
}

}  // namespace colonnade
