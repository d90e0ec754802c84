#pragma once
// SIGINT and SIGTERM as a question the trainer asks between steps. A second signal ends the process at once.

namespace colonnade {

class StopSignal {
  public:
    StopSignal();   ///< installs the handlers; one instance at a time
    ~StopSignal();  ///< puts the old ones back
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;
    /// "SIGTERM" or "SIGINT" once one came, else null.
    const char* received() const;
};

}  // namespace colonnade
