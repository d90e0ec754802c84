#pragma once
// RanksAlarm: ends this process if the ranks do not all join, or do not all leave, in time. MPI_Init and MPI_Finalize
// wait for every rank without a limit, and the watchdog (engine/ranks/watchdog.h) does not know the others yet, or no
// longer.
//
// A thread counts the seconds for which this process is not suspended. If they are over, it looks at the states of the
// ranks that its launcher started on this machine (/proc): one of those that run prints a line, with the ranks that are
// stopped, and all end with Exit::peer.

#include <string>
#include <thread>

namespace colonnade {

class RanksAlarm {
  public:
    struct Options {
        std::string program;  ///< prefix of the line
        std::string done;     ///< what the ranks must all have done: "joined the others"
        double seconds = 600;
        std::string advice{};  ///< what the user can do
    };
    explicit RanksAlarm(Options options);
    /// All ranks have done it.
    ~RanksAlarm();
    RanksAlarm(const RanksAlarm&) = delete;
    RanksAlarm& operator=(const RanksAlarm&) = delete;

  private:
    void run(const std::stop_token& stop) const;
    [[noreturn]] void ring() const;

    const Options options_;
    std::jthread thread_;
};

}  // namespace colonnade
