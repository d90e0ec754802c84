#include "train/run/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <ctime>
#include <iterator>

namespace colonnade {
namespace {

// A signal handler can only use static variables of this type.
volatile sig_atomic_t received_signal = 0;
volatile time_t received_at = 0, grace_seconds = 0;
constexpr int signals[] = {SIGINT, SIGTERM, SIGUSR1, SIGHUP};
struct sigaction old_actions[std::size(signals)];

time_t now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

void on_signal(int signal) {
    if (received_signal && now() - received_at >= grace_seconds) _exit(128 + signal);
    if (received_signal) return;
    received_at = now();
    received_signal = signal;
}

}  // namespace

StopSignal::StopSignal(int grace) {
    received_signal = 0;
    grace_seconds = grace;
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

int StopSignal::number() const {
    return received_signal;
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
