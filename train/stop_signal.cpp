#include "train/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <initializer_list>

namespace colonnade {
namespace {

// A handler can reach nothing but a static of this type.
volatile sig_atomic_t received_signal = 0;
struct sigaction old_int, old_term;

void on_signal(int signal) {
    if (received_signal) _exit(128 + signal);
    received_signal = signal;
}

}  // namespace

StopSignal::StopSignal() {
    received_signal = 0;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, &old_int);
    sigaction(SIGTERM, &action, &old_term);
}

StopSignal::~StopSignal() {
    sigaction(SIGINT, &old_int, nullptr);
    sigaction(SIGTERM, &old_term, nullptr);
}

const char* StopSignal::received() const {
    return received_signal == 0 ? nullptr : received_signal == SIGINT ? "SIGINT" : "SIGTERM";
}

}  // namespace colonnade
