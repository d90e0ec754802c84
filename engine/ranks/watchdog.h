#pragma once
// Watchdog: makes sure that all ranks are alive and make progress, and ends all of them within `timeout` if one is not.
// MPI and NCCL do not: a collective whose partner died or hangs waits forever.
//
// Each rank has a thread with a TCP connection to rank 0. Several times a second it reports the step and the collective
// that the rank is in. Rank 0 decides; its first finding counts and is sent to all ranks:
//
//     a connection closes                 that process died
//     silence for `timeout`               the process is stopped, or its machine is lost
//     a wait longer than `timeout`        a rank that has not reached that collective hangs; if all have, the network
//     a rank reports an error             that rank prints it and ends with the error's exit code
//
// In all cases but the last every rank ends with Exit::peer, after one line on stderr from the lowest remaining rank. A
// process ends by _exit, because teardown of MPI, CUDA or NCCL could hang. The other ranks watch rank 0 in the same
// way. A process that was itself suspended judges nobody by the time that it missed.
//
// Before all ranks have joined and after they have left there is no watchdog: engine/ranks/ranks_alarm.h.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/device/error.h"

namespace colonnade {

/// How long a collective may wait for the other ranks. `none`: some ranks do long work meanwhile.
enum class Deadline { timeout, none };

class Watchdog {
  public:
    struct Options {
        std::string program = "train";  ///< prefix of the line on stderr
        int rank = 0;
        std::vector<std::string> hosts;  ///< one per rank
        int socket = -1;                 ///< on rank 0: the listening socket; else -1
        std::string addresses;           ///< of rank 0, "port address address ..."; empty on rank 0
        uint64_t token = 0;              ///< secret of this run: a connection without it is refused
        double timeout = 600;            ///< seconds
        std::string advice{};            ///< what the user can do, at the end of the line
    };
    /// Rank 0 calls listen() first and sends the result to the other ranks. Throws Exit::peer if rank 0 cannot be
    /// reached.
    explicit Watchdog(Options options);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    struct Listening {
        int socket;
        std::string addresses;
    };
    /// `one_host`: all ranks run here, so that no other machine can reach the port. It is closed when all have joined.
    static Listening listen(bool one_host);

    /// The current step, for messages.
    void set_step(int64_t step);

    /// State of a device. The watchdog's thread asks for it several times a second.
    struct Probe {
        std::string error;        ///< if not empty, all ranks end
        std::string in_progress;  ///< the collective that the device has not completed yet
    };
    void set_probe(std::function<Probe()> probe);
    /// Whether a signal has told this process to end. If so, the launcher may be ending all ranks one by one, and the
    /// death of another is reported only if this process outlives it for a while. Async-signal-safe flags will do.
    void set_told_to_end(std::function<bool()> told_to_end);

    /// While this object exists, the main thread is in a collective. All ranks enter the same ones in the same order.
    class Wait {
      public:
        Wait(Watchdog* watchdog, const std::string& what, Deadline deadline = Deadline::timeout);
        ~Wait();
        Wait(const Wait&) = delete;
        Wait& operator=(const Wait&) = delete;

      private:
        Watchdog* watchdog_;
    };

    /// Reports an error that only this rank knows of: prints it, unless another rank's came first, and ends this
    /// process and all others. Does not return.
    [[noreturn]] void fail_all(Exit exit, const std::string& message);

    /// Call when all ranks are past their last collective: from now on connections may close.
    void dismiss();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace colonnade
