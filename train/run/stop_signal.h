#pragma once
// StopSignal: records SIGINT, SIGTERM, SIGHUP (unless nohup ignores it) and SIGUSR1 (which mpirun forwards to its
// ranks), so that the trainer can stop between steps. A second signal ends the process at once.

namespace colonnade {

class StopSignal {
  public:
    /// Installs the handlers; one instance at a time. Signals within `grace` seconds of the first count as the same
    /// signal: a rank may receive the user's signal both directly and from mpirun.
    explicit StopSignal(int grace = 0);
    ~StopSignal();  ///< restores the old handlers
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;
    /// The signal received, or 0.
    int number() const;
    /// "SIGTERM", "SIGINT", "SIGHUP" or "SIGUSR1"; null if no signal was received.
    const char* received() const { return name(number()); }
    static const char* name(int number);
};

}  // namespace colonnade
