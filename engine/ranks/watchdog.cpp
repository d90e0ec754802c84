#include "engine/ranks/watchdog.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/device/timing.h"
#include "engine/ranks/watch_messages.h"

namespace colonnade {
namespace {

using Clock = std::chrono::steady_clock;

using Kind = WatchKind;
using Status = WatchStatus;
using Message = WatchMessage;
using Connection = WatchConnection;

constexpr size_t messages_at_once = 1000;  // of a peer, which sends a few in a second
constexpr size_t most_strangers = 64;      // few descriptors; ranks that join speak at once
constexpr double hello_seconds = 10;       // a rank sends its hello at once

constexpr double most_of_a_tick = 0.5;  // seconds: a process that was suspended for longer did not wait for others
constexpr double seconds_to_end = 2;    // before a process ends without having printed its line
/// From the end of the first rank to that of the last, if a launcher kills them all.
constexpr double seconds_of_a_launcher = 0.5;

constexpr const char* silent = "has sent nothing for {:.0f} s (stopped by a signal, or its machine is lost)";

std::string place_of(int64_t step) {
    return step == 0 ? "before step 1" : fmt::format("at step {}", step);
}

std::string place(const Status& s) {
    if (!s.what[0]) return place_of(s.step);
    return fmt::format("{}, {} '{}'", place_of(s.step), s.waiting ? "in" : "after", s.what);
}

}  // namespace

struct Watchdog::State {
    struct Peer {
        std::unique_ptr<Connection> connection;  ///< null before its hello
        Status status{};
        double heard = 0, entered = 0;  ///< the last message; when it entered its current collective (State::awake)
        bool dismissed = false;
    };

    Options options;
    int size = 0, wake = -1;
    std::vector<Peer> peers;  ///< by rank; a rank other than 0 knows only rank 0 and itself
    struct Stranger {
        std::unique_ptr<Connection> connection;
        Clock::time_point since = Clock::now();
    };
    std::map<int, Stranger> strangers;  ///< connections without a hello so far, on rank 0 until all ranks have joined
    std::mutex mutex;                   ///< guards the next six
    Status own{};
    std::optional<Message> error;
    std::string error_text;
    bool stopping = false;
    std::function<Probe()> probe;
    std::function<bool()> told_to_end;
    Clock::time_point reported{}, polled{};  ///< when watch() last sent its status, and last polled
    /// Seconds for which this process was not suspended, and when it woke up from a pause as long as the timeout. If
    /// this process pauses, the silence of the others means nothing.
    double awake = 0, woke = -std::numeric_limits<double>::infinity();
    std::jthread thread;

    Peer& self() { return peers[static_cast<size_t>(options.rank)]; }
    std::string name(int rank) const {
        return fmt::format("rank {} of {} on {}", rank, size, options.hosts[static_cast<size_t>(rank)]);
    }
    void wake_up() const {
        const uint64_t one = 1;
        if (write(wake, &one, sizeof one) < 0) return;  // the thread also wakes up by itself
    }

    std::string all_stop() const {
        return options.advice.empty() ? "All ranks stop" : "All ranks stop; " + options.advice;
    }

    /// Ends this process, after a line on stderr if there is one.
    [[noreturn]] void end(Exit exit, const std::string& line, double delay) const {
        // The main thread may be blocked while it prints, and then hold the lock of stdout or stderr.
        try {
            std::thread([exit, delay] {
                sleep_for(delay + seconds_to_end);
                _exit(static_cast<int>(exit));
            }).detach();
        } catch (const std::system_error&) {  // no memory for a thread
        }
        if (!line.empty()) report_error(options.program.c_str(), line, exit);
        std::fflush(stdout);
        sleep_for(delay);
        _exit(static_cast<int>(exit));
    }

    /// On rank 0: sends the verdict to all ranks, then follows it.
    [[noreturn]] void rule(int of_rank, Exit exit, const std::string& line) {
        Message verdict{
            .kind = Kind::verdict, .rank = of_rank, .exit = static_cast<int32_t>(exit), .token = options.token};
        for (Peer& peer : peers)
            if (peer.connection) peer.connection->send(verdict);
        if (of_rank == 0) end_by_own_error();
        end(Exit::peer, line, of_rank > 0 ? later : 0.0);
    }
    /// The rank with the error ends first, so that the launcher returns its exit code.
    static constexpr double later = 1.0;
    [[noreturn]] void end_by_own_error() {
        const std::lock_guard lock(mutex);
        end(static_cast<Exit>(error->exit), error_text, 0);
    }

    void lost(int rank, const std::string& what) {
        const Status& s = peers[static_cast<size_t>(rank)].status;
        rule(-1, Exit::peer, fmt::format("{} {}; last seen {}. {}", name(rank), what, place(s), all_stop()));
    }

    void note(Peer& peer, const Message& message) {
        peer.heard = awake;
        if (message.status.collectives != peer.status.collectives || message.status.waiting != peer.status.waiting)
            peer.entered = awake;
        peer.status = message.status;
        if (message.kind == Kind::bye) peer.dismissed = true;
    }

    void judge() {
        const double limit = options.timeout;
        for (int r = 1; r < size; ++r) {
            const Peer& peer = peers[static_cast<size_t>(r)];
            if (!peer.dismissed && awake - peer.heard > limit) lost(r, fmt::format(silent, limit));
        }
        for (const Peer& peer : peers) {
            const Status& s = peer.status;
            if (!s.waiting || s.unlimited || awake - peer.entered < limit) continue;
            for (int r = 0; r < size; ++r)
                if (peers[static_cast<size_t>(r)].status.collectives < s.collectives)
                    lost(r, fmt::format("has not reached '{}' for {:.0f} s", s.what, limit));
            rule(-1, Exit::peer,
                 fmt::format(
                     "'{}' does not complete {}, although all {} ranks have reached it: gave up after {:.0f} s. {}",
                     s.what, place_of(s.step), size, limit, all_stop()));
        }
    }

    void accept_stranger() {
        const int fd = accept4(options.socket, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd >= 0) strangers.emplace(fd, Stranger{std::make_unique<Connection>(fd)});
    }

    /// Others may find the port, too. They get no time, no memory, and after all ranks have joined no port.
    void dismiss_strangers() {
        const bool joined =
            std::all_of(peers.begin() + 1, peers.end(), [](const Peer& peer) { return peer.connection != nullptr; });
        if (options.socket >= 0 && joined) close(std::exchange(options.socket, -1));
        std::erase_if(strangers, [&](const auto& stranger) {
            return joined || seconds_since(stranger.second.since) > hello_seconds;
        });
        while (strangers.size() > most_strangers)
            strangers.erase(std::ranges::min_element(strangers, {}, [](const auto& s) { return s.second.since; }));
    }

    void hear_stranger(int fd) {
        std::optional<int> rank;
        std::unique_ptr<Connection>& stranger = strangers.at(fd).connection;
        bool spoke = false;
        const bool open = stranger->receive(1, [&](const Message& m) {
            spoke = true;
            const bool ours = m.kind == Kind::hello && m.token == options.token && m.rank > 0 && m.rank < size;
            if (ours && !peers[static_cast<size_t>(m.rank)].connection) rank = m.rank;
        });
        if (rank) {
            Peer& peer = peers[static_cast<size_t>(*rank)];
            peer.connection = std::move(stranger);
            peer.heard = awake;
            peer.connection->send({.kind = Kind::hello, .rank = 0, .token = options.token});
        }
        if (spoke || !open) strangers.erase(fd);
    }

    bool is_told_to_end() {
        const std::lock_guard lock(mutex);
        return told_to_end && told_to_end();
    }

    void hear_peer(int rank) {
        Peer& peer = peers[static_cast<size_t>(rank)];
        const bool open = peer.connection->receive(messages_at_once, [&](const Message& m) {
            note(peer, m);
            if (m.kind == Kind::error) rule(rank, static_cast<Exit>(m.exit), "");
            if (m.kind == Kind::verdict) {
                if (m.rank == options.rank) end_by_own_error();
                end(Exit::peer, "", later);
            }
        });
        if (open) return;
        peer.connection.reset();
        if (peer.dismissed) return;
        if (awake - woke < 3) end(Exit::peer, "", 0);  // the other ranks have printed why they ended
        if (is_told_to_end()) sleep_for(seconds_of_a_launcher);
        if (options.rank == 0) lost(rank, "died");
        lost_rank_zero("died");
    }

    /// Rank 0 cannot report this itself: rank 1 prints the line.
    [[noreturn]] void lost_rank_zero(const std::string& what) {
        const std::string line =
            fmt::format("{} {}; last seen {}. {}", name(0), what, place(peers[0].status), all_stop());
        {
            const std::lock_guard lock(mutex);
            if (error) end(static_cast<Exit>(error->exit), error_text, 0);
        }
        end(Exit::peer, options.rank == 1 ? line : "", options.rank == 1 ? 0 : later);
    }

    static void set_what(Status& status, const std::string& what) {
        status.what[what.copy(status.what, sizeof status.what - 1)] = 0;
    }

    /// Called with the mutex held.
    void ask_device(Status& status) {
        const Probe found = probe();
        if (status.waiting && !found.in_progress.empty()) set_what(status, found.in_progress);
        if (found.error.empty() || error) return;
        error = Message{.exit = static_cast<int32_t>(Exit::peer)};
        error_text = fmt::format("{}, {}: {}", name(options.rank), place(status), found.error);
    }

    /// Sends the own status, or the own error, to the peers. Returns false when dismissed.
    bool report(double tick) {
        Message message{.rank = options.rank, .token = options.token};
        {
            const std::lock_guard lock(mutex);
            message.status = own;
            if (probe) ask_device(message.status);
            if (error) message.kind = Kind::error, message.exit = error->exit;
            if (stopping) message.kind = Kind::bye;
        }
        note(self(), message);
        if (options.rank == 0 && message.kind == Kind::error) rule(0, static_cast<Exit>(message.exit), "");
        // Not at every wake-up: two ranks would answer each other endlessly.
        if (message.kind != Kind::beat || seconds_since(reported) > 0.9 * tick) {
            reported = Clock::now();
            for (Peer& peer : peers)
                if (peer.connection) peer.connection->send(message);
        }
        return message.kind != Kind::bye;
    }

    /// Waits up to `tick` seconds for messages, new connections or a wake-up, and handles them.
    void listen_for(double tick) {
        std::vector<pollfd> fds = {{wake, POLLIN, 0}};
        std::vector<std::function<void()>> handlers = {[this] {
            uint64_t count = 0;
            [[maybe_unused]] const ssize_t cleared = read(wake, &count, sizeof count);
        }};
        const auto add = [&](int fd, std::function<void()> handler) {
            fds.push_back({fd, POLLIN, 0});
            handlers.push_back(std::move(handler));
        };
        if (options.socket >= 0) add(options.socket, [this] { accept_stranger(); });
        for (const auto& [fd, stranger] : strangers) add(fd, [this, fd = fd] { hear_stranger(fd); });
        for (int r = 0; r < size; ++r)
            if (const auto& connection = peers[static_cast<size_t>(r)].connection)
                add(connection->fd(), [this, r] { hear_peer(r); });
        poll(fds.data(), fds.size(), static_cast<int>(1e3 * tick));
        count_time();
        for (size_t i = 0; i < fds.size(); ++i)
            if (fds[i].revents) handlers[i]();
    }

    void count_time() {
        const double elapsed = seconds_since(std::exchange(polled, Clock::now()));
        awake += std::min(elapsed, most_of_a_tick);
        if (elapsed > 0.9 * options.timeout) woke = awake;
    }

    void watch() {
        polled = Clock::now();
        const double tick = std::min(0.25, options.timeout / 10);
        while (true) {
            if (options.rank == 0) dismiss_strangers();
            if (!report(tick)) return;
            listen_for(tick);
            if (options.rank == 0)
                judge();
            else if (!peers[0].dismissed && awake - peers[0].heard > options.timeout)
                lost_rank_zero(fmt::format(silent, options.timeout));
        }
    }

    enum class Answer { welcome, none, unreachable };

    /// Connects to rank 0 at this address.
    Answer reach(const std::string& address, uint16_t port) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) return Answer::unreachable;
        auto connection = std::make_unique<Connection>(fd);
        const timeval patience{.tv_sec = 5, .tv_usec = 0};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(port);
        inet_pton(AF_INET, address.c_str(), &to.sin_addr);
        if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return Answer::unreachable;
        connection->send({.kind = Kind::hello, .rank = options.rank, .token = options.token});
        bool known = false;
        for (const auto start = Clock::now(); !known && seconds_since(start) < 5;) {
            pollfd waiting{fd, POLLIN, 0};
            poll(&waiting, 1, 100);
            const bool open = connection->receive(1, [&](const Message& m) { known |= m.token == options.token; });
            if (!open) break;
        }
        if (known) peers[0].connection = std::move(connection);
        return known ? Answer::welcome : Answer::none;
    }

    void connect_to_zero() {
        std::istringstream text(options.addresses);
        uint16_t port = 0;
        std::vector<std::string> addresses;
        text >> port;
        for (std::string address; text >> address;) addresses.push_back(address);
        if (options.hosts[0] == options.hosts[static_cast<size_t>(options.rank)])
            addresses.insert(addresses.begin(), "127.0.0.1");
        // While rank 0 is silent, it may be stopped: then RanksAlarm ends this process.
        for (bool reachable = true; reachable;) {
            reachable = false;
            for (const std::string& address : addresses) {
                const Answer answer = reach(address, port);
                if (answer == Answer::welcome) return;
                reachable |= answer == Answer::none;
            }
        }
        fail(Exit::peer, "{} cannot reach rank 0 on {} at any of its addresses ({}), port {}", name(options.rank),
             options.hosts[0], fmt::join(addresses, ", "), port);
    }
};

Watchdog::Listening Watchdog::listen(bool one_host) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    if (one_host) any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof any;
    if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 || ::listen(fd, 128) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&any), &bytes) != 0)
        fail(Exit::peer, "rank 0 cannot listen on a TCP port: {}", std::strerror(errno));
    std::string addresses = std::to_string(ntohs(any.sin_port));
    if (one_host) return {fd, addresses + " 127.0.0.1"};
    ifaddrs* interfaces = nullptr;
    if (getifaddrs(&interfaces) != 0) return {fd, addresses};
    for (const ifaddrs* i = interfaces; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK)) continue;
        char text[INET_ADDRSTRLEN] = {};
        inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr, text, sizeof text);
        addresses += std::string(" ") + text;
    }
    freeifaddrs(interfaces);
    return {fd, addresses};
}

Watchdog::Watchdog(Options options) : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.options = std::move(options);
    s.size = static_cast<int>(s.options.hosts.size());
    s.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s.peers = std::vector<State::Peer>(static_cast<size_t>(s.size));
    if (s.options.rank > 0) s.connect_to_zero();
    s.thread = std::jthread([&s] { s.watch(); });
}

Watchdog::~Watchdog() {
    dismiss();
    if (state_->options.socket >= 0) close(state_->options.socket);
    close(state_->wake);
}

void Watchdog::set_step(int64_t step) {
    const std::lock_guard lock(state_->mutex);
    state_->own.step = step;
}

void Watchdog::set_probe(std::function<Probe()> probe) {
    const std::lock_guard lock(state_->mutex);
    state_->probe = std::move(probe);
}

void Watchdog::set_told_to_end(std::function<bool()> told_to_end) {
    const std::lock_guard lock(state_->mutex);
    state_->told_to_end = std::move(told_to_end);
}

Watchdog::Wait::Wait(Watchdog* watchdog, const std::string& what, Deadline deadline) : watchdog_(watchdog) {
    if (!watchdog_) return;
    const std::lock_guard lock(watchdog_->state_->mutex);
    Status& own = watchdog_->state_->own;
    ++own.collectives;
    own.waiting = 1;
    own.unlimited = deadline == Deadline::none;
    State::set_what(own, what);
}

Watchdog::Wait::~Wait() {
    if (!watchdog_) return;
    const std::lock_guard lock(watchdog_->state_->mutex);
    watchdog_->state_->own.waiting = 0;
}

void Watchdog::fail_all(Exit exit, const std::string& message) {
    const std::string line =
        fmt::format("{}, {}: {}", state_->name(state_->options.rank), place_of(state_->own.step), message);
    {
        const std::lock_guard lock(state_->mutex);
        state_->error = Message{.exit = static_cast<int32_t>(exit)};
        state_->error_text = line;
    }
    state_->wake_up();
    sleep_for(10);  // the watchdog's thread ends the process long before
    state_->end(exit, line, 0);
}

void Watchdog::dismiss() {
    {
        const std::lock_guard lock(state_->mutex);
        state_->stopping = true;
    }
    state_->wake_up();
    if (state_->thread.joinable()) state_->thread.join();
}

}  // namespace colonnade
