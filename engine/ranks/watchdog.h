#pragma once
// Watchdog: knows on every rank that the others are alive and get on, and ends all of them within `timeout` where one is
// not. MPI and NCCL do not: a collective whose partner died or hangs waits for ever.
//
// Each rank has a thread with a TCP connection to rank 0 and says over it, several times a second, at which step and in
// which collective it is. Rank 0 judges, the first finding counts, and everybody is told:
//
//     a connection that ends              that process died
//     silence for `timeout`               it is stopped, or its machine is gone
//     a wait longer than `timeout`        whoever has not come to that collective hangs; where all have, the network does
//     a rank reports an error             that rank prints it and ends with the error's exit code
//
// All but the last end every rank with Exit::peer after one line on stderr, from the lowest rank that is left. A process
// ends by _exit: teardown of MPI, CUDA or NCCL could hang. Rank 0 is watched by all others in the same way.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/device/error.h"

namespace colonnade {

class Watchdog {
  public:
    struct Options {
        std::string program = "train";  ///< begins the line on stderr
        int rank = 0;
        std::vector<std::string> hosts;  ///< of every rank
        int socket = -1;                 ///< rank 0: listens; else: -1
        std::string addresses;           ///< of rank 0, "port address address ..."; empty on rank 0
        uint64_t token = 0;              ///< who does not know it is no rank of this run
        double timeout = 600;            ///< seconds
    };
    /// Rank 0 calls listen() first and passes on what it says. Throws Exit::peer where rank 0 cannot be reached.
    explicit Watchdog(Options options);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    struct Listening {
        int socket;
        std::string addresses;
    };
    static Listening listen();

    void set_timeout(double seconds);
    /// The step that is under way, for messages.
    void set_step(int64_t step);

    /// What a device is at, asked several times a second, from the watchdog's thread.
    struct Probe {
        std::string error;      ///< not empty: ends all ranks
        std::string under_way;  ///< the collective that the device has not done yet
    };
    void set_probe(std::function<Probe()> probe);

    /// The main thread is in a collective as long as this exists. All ranks come to the same ones in the same order.
    class Wait {
      public:
        /// A patient wait may last: somebody does long work meanwhile.
        Wait(Watchdog* watchdog, std::string what, bool patient = false);
        ~Wait();
        Wait(const Wait&) = delete;
        Wait& operator=(const Wait&) = delete;

      private:
        Watchdog* watchdog_;
    };

    /// An error that only this rank knows of: prints it (unless another rank's came first) and ends this process and all
    /// others. Does not return.
    [[noreturn]] void fail_all(Exit exit, const std::string& message);

    /// All ranks are past their last collective: from here on a connection may end.
    void dismiss();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace colonnade
