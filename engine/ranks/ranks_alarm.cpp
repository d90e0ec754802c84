#include "engine/ranks/ranks_alarm.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <vector>

#include "engine/device/error.h"
#include "engine/device/timing.h"
#include "engine/ranks/message_passing.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

struct LocalRank {
    pid_t process;
    char state;  ///< as in /proc/PID/stat: T is stopped, t is stopped by a debugger
    bool stopped() const { return state == 'T' || state == 't'; }
};

/// State of a process; '?' if it has gone.
char state_of(const std::string& process) {
    std::ifstream file("/proc/" + process + "/stat");
    std::string text;
    std::getline(file, text);
    const size_t name_ends = text.rfind(')');  // a name may contain anything
    return name_ends == std::string::npos || name_ends + 2 >= text.size() ? '?' : text[name_ends + 2];
}

/// The ranks that this process's parent started, by rank; empty if a script lies between the launcher and its ranks.
std::map<int, LocalRank> local_ranks() {
    std::map<int, LocalRank> found;
    std::error_code error;
    for (fs::directory_iterator thread(fmt::format("/proc/{}/task", getppid()), error), end; !error && thread != end;
         thread.increment(error)) {
        std::ifstream children(thread->path() / "children");
        for (std::string process; children >> process;) {
            std::ifstream environment("/proc/" + process + "/environ");
            for (std::string variable; std::getline(environment, variable, '\0');)
                for (const char* name : mpi::rank_variables)
                    if (variable.starts_with(name + std::string("=")))
                        found.emplace(std::atoi(variable.c_str() + variable.find('=') + 1),
                                      LocalRank{std::atoi(process.c_str()), state_of(process)});
        }
    }
    return found;
}

[[noreturn]] void end(double seconds) {
    sleep_for(seconds);
    _exit(static_cast<int>(Exit::peer));
}

}  // namespace

RanksAlarm::RanksAlarm(Options options)
    : options_(std::move(options)), thread_([this](const std::stop_token& stop) { run(stop); }) {}

RanksAlarm::~RanksAlarm() = default;

void RanksAlarm::run(const std::stop_token& stop) const {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    // In short waits: if this process is suspended, only a fraction of a second of the pause counts.
    constexpr double tick = 0.25;
    for (double awake = 0; awake < options_.seconds;) {
        const auto start = std::chrono::steady_clock::now();
        wake.wait_for(lock, stop, std::chrono::duration<double>(tick), [] { return false; });
        if (stop.stop_requested()) return;
        awake += std::min(2 * tick, seconds_since(start));
    }
    ring();
}

void RanksAlarm::ring() const {
    const std::map<int, LocalRank> ranks = local_ranks();
    const int own = mpi::launched_rank(), size = mpi::launched_size();
    std::vector<std::string> stopped;
    const bool known = ranks.contains(own);
    int speaker = known ? -1 : 0;
    for (const auto& [rank, local] : ranks) {
        if (local.stopped())
            stopped.push_back(
                fmt::format("rank {} of {} (process {} on {})", rank, size, local.process, mpi::host_name()));
        else if (speaker < 0)
            speaker = rank;
    }
    const int gone = known ? mpi::launched_local_size() - static_cast<int>(std::ssize(ranks)) : 0;
    if (own != speaker) end(2);
    // If this process lives on: after the end of a rank the launcher ends the others soon. And another machine may know
    // more than this one.
    if (gone > 0 || stopped.empty()) sleep_for(3);
    const std::string late = fmt::format("not all ranks have {} after {:.0f} s.", options_.done, options_.seconds);
    std::string who =
        fmt::format("of {} ranks, {} None on {} is stopped: is a machine of the run lost, or not reachable?", size,
                    late, mpi::host_name());
    if (gone > 0) who = fmt::format("of {} ranks, {} on {} died, and {}", size, gone, mpi::host_name(), late);
    if (!stopped.empty())
        who = fmt::format("{} {} stopped, by a signal or a debugger, and {}", fmt::join(stopped, ", "),
                          stopped.size() == 1 ? "is" : "are", late);
    report_error(options_.program.c_str(),
                 fmt::format("{} All ranks stop{}{}", who, options_.advice.empty() ? "" : "; ", options_.advice),
                 Exit::peer);
    end(0);
}

}  // namespace colonnade
