#include "engine/ranks/watchdog.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "engine/device/timing.h"

namespace colonnade {
namespace {

using Clock = std::chrono::steady_clock;

void sleep_for(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

enum class Kind : uint32_t { hello, beat, error, verdict, bye };

/// What the main thread of a rank is doing.
struct Status {
    int64_t step = 0;
    uint64_t collectives = 0;  ///< number entered so far
    uint32_t waiting = 0, unlimited = 0;
    char what[80] = {};  ///< the last one entered
};

/// The only message format. Both ends run the same program, so the bytes are sent as they are.
struct Message {
    Kind kind = Kind::beat;
    int32_t rank = 0;  ///< the sender; in a verdict the rank whose error it is, or -1
    int32_t exit = 0;
    uint64_t token = 0;
    Status status{};
};

/// One end of a connection. Neither sending nor receiving blocks.
class Connection {
  public:
    explicit Connection(int fd) : fd_(fd) {
        const int on = 1;
        setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    ~Connection() { close(fd_); }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    int fd() const { return fd_; }
    void send(const Message& message) {
        // The other side may be stopped: heartbeats that it does not need are not queued.
        if (message.kind == Kind::beat && !out_.empty()) return flush();
        out_.append(reinterpret_cast<const char*>(&message), sizeof message);
        flush();
    }
    /// Calls on_message for the messages that have arrived, up to `most`. Returns false if the other side has closed.
    template <typename OnMessage>
    bool receive(size_t most, OnMessage&& on_message) {
        for (size_t seen = 0; seen < most; ++seen) {
            char buffer[sizeof(Message)];
            while (in_.size() < sizeof(Message)) {
                const ssize_t got = recv(fd_, buffer, sizeof(Message) - in_.size(), MSG_DONTWAIT);
                if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
                in_.append(buffer, static_cast<size_t>(got));
            }
            Message message;
            std::memcpy(&message, in_.data(), sizeof message);
            in_.clear();
            on_message(message);
        }
        return true;
    }

  private:
    void flush() {
        const ssize_t sent = ::send(fd_, out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) out_.erase(0, static_cast<size_t>(sent));
    }
    int fd_;
    std::string in_, out_;
};

constexpr size_t messages_at_once = 1000;  // of a peer, which sends a few in a second
constexpr size_t most_strangers = 64;      // few descriptors; ranks that join speak at once
constexpr double hello_seconds = 10;       // a rank sends its hello at once

constexpr const char* silent = "has sent nothing for {:.0f} s (stopped, or its machine is lost)";

std::string place(const Status& s) {
    if (!s.what[0]) return fmt::format("at step {}", s.step);
    return fmt::format("at step {}, {} '{}'", s.step, s.waiting ? "in" : "after", s.what);
}

}  // namespace

struct Watchdog::State {
    struct Peer {
        std::unique_ptr<Connection> connection;  ///< null before its hello
        Status status{};
        Clock::time_point heard = Clock::now();
        Clock::time_point entered = Clock::now();  ///< when it entered its current collective
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
    double timeout = 0;
    std::optional<Message> error;
    std::string error_text;
    bool stopping = false;
    std::function<Probe()> probe;
    Clock::time_point reported{}, polled{};  ///< when watch() last sent its status, and last polled
    bool was_stopped = false;                ///< this process was suspended just now
    std::jthread thread;

    Peer& self() { return peers[static_cast<size_t>(options.rank)]; }
    std::string name(int rank) const {
        return fmt::format("rank {} of {} on {}", rank, size, options.hosts[static_cast<size_t>(rank)]);
    }
    void wake_up() const {
        const uint64_t one = 1;
        if (write(wake, &one, sizeof one) < 0) return;  // the thread also wakes up by itself
    }

    /// Ends this process, after a line on stderr if there is one.
    [[noreturn]] void end(Exit exit, const std::string& line, double delay) const {
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
        rule(-1, Exit::peer, fmt::format("{} {}; last seen {}. All ranks stop", name(rank), what, place(s)));
    }

    void note(Peer& peer, const Message& message) {
        peer.heard = Clock::now();
        if (message.status.collectives != peer.status.collectives || message.status.waiting != peer.status.waiting)
            peer.entered = Clock::now();
        peer.status = message.status;
        if (message.kind == Kind::bye) peer.dismissed = true;
    }

    void judge(double limit) {
        for (int r = 1; r < size; ++r) {
            const Peer& peer = peers[static_cast<size_t>(r)];
            if (!peer.dismissed && seconds_since(peer.heard) > limit) lost(r, fmt::format(silent, limit));
        }
        for (const Peer& peer : peers) {
            const Status& s = peer.status;
            if (!s.waiting || s.unlimited || seconds_since(peer.entered) < limit) continue;
            for (int r = 0; r < size; ++r)
                if (peers[static_cast<size_t>(r)].status.collectives < s.collectives)
                    lost(r, fmt::format("has not reached '{}' for {:.0f} s", s.what, limit));
            rule(-1, Exit::peer,
                 fmt::format(
                     "'{}' of step {} does not complete although all {} ranks have reached it: gave up after {:.0f} s. "
                     "All ranks stop",
                     s.what, s.step, size, limit));
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
            peer.heard = Clock::now();
            peer.connection->send({.kind = Kind::hello, .rank = 0, .token = options.token});
        }
        if (spoke || !open) strangers.erase(fd);
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
        if (was_stopped) end(Exit::peer, "", 0);  // the other ranks have printed why they ended
        if (options.rank == 0) lost(rank, "died");
        lost_rank_zero("died");
    }

    /// Rank 0 cannot report this itself: rank 1 prints the line.
    [[noreturn]] void lost_rank_zero(const std::string& what) {
        const std::string line =
            fmt::format("{} {}; last seen {}. All ranks stop", name(0), what, place(peers[0].status));
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
    void listen_for(double tick, double limit) {
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
        check_own_pause(limit);
        for (size_t i = 0; i < fds.size(); ++i)
            if (fds[i].revents) handlers[i]();
    }

    /// If this process itself was suspended for a while, the silence of the others means nothing.
    void check_own_pause(double limit) {
        was_stopped = seconds_since(polled) > limit / 2;
        polled = Clock::now();
        if (!was_stopped) return;
        for (Peer& peer : peers) peer.heard = peer.entered = polled;
    }

    void watch() {
        polled = Clock::now();
        while (true) {
            double limit = 0;
            {
                const std::lock_guard lock(mutex);
                limit = timeout;
            }
            const double tick = std::min(0.25, limit / 10);
            if (options.rank == 0) dismiss_strangers();
            if (!report(tick)) return;
            listen_for(tick, limit);
            if (options.rank == 0)
                judge(limit);
            else if (!peers[0].dismissed && seconds_since(peers[0].heard) > limit)
                lost_rank_zero(fmt::format(silent, limit));
        }
    }

    /// A connection to rank 0 at this address, or null.
    std::unique_ptr<Connection> reach(const std::string& address, uint16_t port) const {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) return nullptr;
        auto connection = std::make_unique<Connection>(fd);
        const timeval patience{.tv_sec = 5, .tv_usec = 0};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(port);
        inet_pton(AF_INET, address.c_str(), &to.sin_addr);
        if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) return nullptr;
        connection->send({.kind = Kind::hello, .rank = options.rank, .token = options.token});
        bool known = false;
        for (const auto start = Clock::now(); !known && seconds_since(start) < 5;) {
            pollfd waiting{fd, POLLIN, 0};
            poll(&waiting, 1, 100);
            const bool open = connection->receive(1, [&](const Message& m) { known |= m.token == options.token; });
            if (!open) break;
        }
        return known ? std::move(connection) : nullptr;
    }

    void connect_to_zero() {
        std::istringstream text(options.addresses);
        uint16_t port = 0;
        std::vector<std::string> addresses;
        text >> port;
        for (std::string address; text >> address;) addresses.push_back(address);
        if (options.hosts[0] == options.hosts[static_cast<size_t>(options.rank)])
            addresses.insert(addresses.begin(), "127.0.0.1");
        for (const std::string& address : addresses)
            if ((peers[0].connection = reach(address, port))) return;
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
    s.timeout = s.options.timeout;
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

void Watchdog::set_timeout(double seconds) {
    const std::lock_guard lock(state_->mutex);
    state_->timeout = seconds;
}

void Watchdog::set_step(int64_t step) {
    const std::lock_guard lock(state_->mutex);
    state_->own.step = step;
}

void Watchdog::set_probe(std::function<Probe()> probe) {
    const std::lock_guard lock(state_->mutex);
    state_->probe = std::move(probe);
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
        fmt::format("{}, step {}: {}", state_->name(state_->options.rank), state_->own.step, message);
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
