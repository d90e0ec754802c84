#pragma once
// SIGINT, SIGTERM and SIGUSR1 (which mpirun passes on to its ranks) as a question the trainer asks between steps. A
// second signal ends the process at once.

namespace colonnade {

class StopSignal {
  public:
    /// Installs the handlers; one instance at a time. Signals within `grace` seconds of the first count as the same one: a
    /// rank may get what the user sent to everybody from mpirun as well.
    explicit StopSignal(int grace = 0);
    ~StopSignal();  ///< puts the old ones back
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;
    /// The signal once one came, else 0.
    int number() const;
    /// "SIGTERM", "SIGINT" or "SIGUSR1" once one came, else null.
    const char* received() const { return name(number()); }
    static const char* name(int number);
};

}  // namespace colonnade
