#pragma once
// StopSignal: records SIGINT, SIGTERM, SIGHUP (unless nohup ignores it) and SIGUSR1 (which mpirun forwards to its
// ranks), so that the trainer can stop between steps. The handler answers the first signal on stderr with one line,
// also in the middle of a long step:
//
//     will save and stop after this step (about 53 s); Ctrl-C again stops unsaved
//
// A second signal ends the process at once, after a line that says what is lost.

#include <string_view>

namespace colonnade {

class StopSignal {
  public:
    struct Options {
        int grace = 0;        ///< seconds in which further signals count as the first one
        bool answers = true;  ///< prints these lines
    };
    /// Installs the handlers; one instance at a time. A rank may receive the user's signal both directly and from
    /// mpirun: hence `grace`.
    explicit StopSignal(Options options);
    ~StopSignal();  ///< restores the old handlers
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;
    /// The signal that the newest instance received, or 0.
    static int number();
    /// "SIGTERM", "SIGINT", "SIGHUP" or "SIGUSR1"; null for another number.
    static const char* name(int number);

    /// The answer to a first signal from now on, and in how many seconds that will be (0: not known). `answer` is a
    /// literal.
    void answer_first(const char* answer, double seconds);
    /// The answer to a second signal; what is longer than 500 bytes is cut.
    void answer_second(std::string_view answer);
};

}  // namespace colonnade
