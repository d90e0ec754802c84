#include "engine/ranks/ranks.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <random>

#include "engine/ranks/message_passing.h"
#include "engine/ranks/ranks_alarm.h"

namespace colonnade {
namespace {

/// Seconds that a launcher may take to start the last rank after the first, beside the timeout.
constexpr double launch_seconds = 2;

/// An error that all ranks know of. One of them, which has `prints` set, prints it.
struct AgreedError : Error {
    AgreedError(Exit exit, const std::string& message, bool prints_it) : Error(exit, message), prints(prints_it) {}
    bool prints;
};

/// Exit code and message of what `body` throws, if it throws.
std::optional<Error> error_of(const std::function<void()>& body) {
    try {
        body();
        return {};
    } catch (...) {
        return error_in_flight();
    }
}

}  // namespace

Ranks::Ranks() = default;

Ranks::Ranks(Options options) : options_(std::move(options)) {
    if (mpi::launched_size() < 2) return;
    const pid_t launcher = getppid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // no rank outlives its launcher
    if (getppid() != launcher) _exit(static_cast<int>(Exit::peer));
    const RanksAlarm alarm({.program = options_.program,
                            .done = "joined the others",
                            .seconds = options_.timeout + launch_seconds,
                            .advice = options_.advice});
    join();
}

void Ranks::join() {
    const mpi::World world = mpi::start();
    rank_ = world.rank;
    size_ = world.size;
    local_rank_ = world.local_rank;
    local_size_ = world.local_size;
    hosts_ = gather("host names", mpi::host_name());
    struct {
        uint64_t token;
        char addresses[1024];
    } call{};
    Watchdog::Listening listening{-1, ""};
    if (first()) {
        listening = Watchdog::listen(std::ranges::count(hosts_, hosts_[0]) == std::ssize(hosts_));
        std::random_device random;
        call.token = uint64_t{random()} << 32 | random();
        listening.addresses.copy(call.addresses, sizeof call.addresses - 1);
    }
    mpi::broadcast(&call, sizeof call, 0);
    watchdog_ = std::make_unique<Watchdog>(Watchdog::Options{.program = options_.program,
                                                             .rank = rank_,
                                                             .hosts = hosts_,
                                                             .socket = listening.socket,
                                                             .addresses = call.addresses,
                                                             .token = call.token,
                                                             .timeout = options_.timeout,
                                                             .advice = options_.advice});
}

Ranks::~Ranks() {
    // An error that propagates out of guard() must not wait for the other ranks.
    if (several() && !left_ && std::uncaught_exceptions() == 0) leave();
}

void Ranks::leave() {
    left_ = true;
    barrier("the end", Deadline::none);
    watchdog_->dismiss();
    const RanksAlarm alarm(
        {.program = options_.program, .done = "ended", .seconds = options_.timeout + launch_seconds});
    mpi::finish();
}

std::string Ranks::name(int rank) const {
    return fmt::format("rank {} of {} on {}", rank, size_, hosts_[static_cast<size_t>(rank)]);
}

int Ranks::guard(const std::function<int()>& body) {
    if (!several()) return body();
    int code = 0;
    try {
        end_all_on_error([&] { code = body(); });
    } catch (const AgreedError& e) {
        // Printed before any rank leaves: the launcher kills the others as soon as one has ended.
        if (e.prints) report_error(options_.program.c_str(), e.what(), e.exit());
        leave();
        return static_cast<int>(e.exit());
    }
    leave();
    return code;
}

void Ranks::end_all_on_error(const std::function<void()>& body) const {
    if (!several()) return body();
    std::optional<AgreedError> agreed;
    const std::optional<Error> own = error_of([&] {
        try {
            body();
        } catch (const AgreedError& e) {
            agreed = e;
        }
    });
    if (agreed) throw *agreed;
    if (own) watchdog_->fail_all(own->exit(), own->what());
}

void Ranks::together(const std::string& what, const std::function<void()>& body) const {
    if (!several()) return body();
    std::optional<AgreedError> agreed;  // from a nested call: passed on unchanged
    const std::optional<Error> own = error_of([&] {
        try {
            body();
        } catch (const AgreedError& e) {
            agreed = e;
        }
    });
    if (agreed) throw *agreed;
    const std::vector<std::string> all =
        gather(what, own ? fmt::format("{} {}", static_cast<int>(own->exit()), own->what()) : "", Deadline::none);
    const auto bad = std::find_if(all.begin(), all.end(), [](const std::string& text) { return !text.empty(); });
    if (bad == all.end()) return;
    const auto rank = static_cast<int>(bad - all.begin());
    const bool everywhere = std::all_of(all.begin(), all.end(), [&](const std::string& text) { return text == *bad; });
    const size_t space = bad->find(' ');
    const std::string message = bad->substr(space + 1);
    throw AgreedError(static_cast<Exit>(std::stoi(bad->substr(0, space))),
                      everywhere ? message : fmt::format("{}: {}", name(rank), message), rank == rank_);
}

void Ranks::in_turn(const std::string& what, const std::function<void()>& body) const {
    if (!several()) return body();
    const auto part = [&](bool mine) {
        together(what, [&] {
            if (mine) body();
        });
    };
    const bool local_first = local_rank_ == 0;
    part(first());
    part(!first() && local_first);
    part(!local_first);
}

void Ranks::barrier(const std::string& what, Deadline deadline) const {
    if (!several()) return;
    const Watchdog::Wait wait(watchdog_.get(), what, deadline);
    mpi::barrier();
}

std::vector<std::string> Ranks::gather(const std::string& what, const std::string& own, Deadline deadline) const {
    if (!several()) return {own};
    const Watchdog::Wait wait(watchdog_.get(), what, deadline);
    const auto n = static_cast<size_t>(size_);
    const uint64_t own_bytes = own.size();
    std::vector<uint64_t> bytes(n);
    mpi::all_gather(bytes.data(), &own_bytes, sizeof own_bytes);
    const size_t most = *std::max_element(bytes.begin(), bytes.end());
    std::string padded = own, joined(n * most, '\0');
    padded.resize(most);
    if (most > 0) mpi::all_gather(joined.data(), padded.data(), most);
    std::vector<std::string> all;
    for (size_t r = 0; r < n; ++r) all.push_back(joined.substr(r * most, bytes[r]));
    return all;
}

std::string Ranks::broadcast(const std::string& what, const std::string& own) const {
    if (!several()) return own;
    const Watchdog::Wait wait(watchdog_.get(), what);
    uint64_t bytes = own.size();
    mpi::broadcast(&bytes, sizeof bytes, 0);
    std::string text = own;
    text.resize(bytes);
    if (bytes > 0) mpi::broadcast(text.data(), bytes, 0);
    return text;
}

int64_t Ranks::max(const std::string& what, int64_t own) const {
    if (!several()) return own;
    const Watchdog::Wait wait(watchdog_.get(), what);
    std::vector<int64_t> all(static_cast<size_t>(size_));
    mpi::all_gather(all.data(), &own, sizeof own);
    return *std::max_element(all.begin(), all.end());
}

std::vector<double> Ranks::max(const std::string& what, const std::vector<double>& own) const {
    if (!several()) return own;
    const Watchdog::Wait wait(watchdog_.get(), what);
    std::vector<double> all(own.size() * static_cast<size_t>(size_)), largest = own;
    mpi::all_gather(all.data(), own.data(), own.size() * sizeof(double));
    for (size_t i = 0; i < all.size(); ++i) largest[i % own.size()] = std::max(largest[i % own.size()], all[i]);
    return largest;
}

std::vector<double> Ranks::sum(const std::string& what, const std::vector<double>& own) const {
    if (!several()) return own;
    const Watchdog::Wait wait(watchdog_.get(), what);
    std::vector<double> all(own.size() * static_cast<size_t>(size_)), total(own.size());
    mpi::all_gather(all.data(), own.data(), own.size() * sizeof(double));
    for (size_t i = 0; i < all.size(); ++i) total[i % own.size()] += all[i];
    return total;
}

void Ranks::set_step(int64_t step) const {
    if (watchdog_) watchdog_->set_step(step);
}

const Ranks& one_rank() {
    static const Ranks alone;
    return alone;
}

}  // namespace colonnade
