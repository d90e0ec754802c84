#pragma once
// What the ranks' watchdogs (engine/ranks/watchdog.h) tell each other, over TCP.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace colonnade {

enum class WatchKind : uint32_t { hello, beat, error, verdict, bye };

/// What the main thread of a rank is doing.
struct WatchStatus {
    int64_t step = 0;
    uint64_t collectives = 0;  ///< number entered so far
    uint32_t waiting = 0, unlimited = 0;
    char what[80] = {};  ///< the last one entered
};

/// The only message format. Both ends run the same program, so the bytes are sent as they are.
struct WatchMessage {
    WatchKind kind = WatchKind::beat;
    int32_t rank = 0;  ///< the sender; in a verdict the rank whose error it is, or -1
    int32_t exit = 0;
    uint64_t token = 0;
    WatchStatus status{};
};

/// One end of a connection. Neither sending nor receiving blocks.
class WatchConnection {
  public:
    explicit WatchConnection(int fd) : fd_(fd) {
        const int on = 1;
        setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    ~WatchConnection() { close(fd_); }
    WatchConnection(const WatchConnection&) = delete;
    WatchConnection& operator=(const WatchConnection&) = delete;

    int fd() const { return fd_; }
    void send(const WatchMessage& message) {
        // The other side may be stopped: heartbeats that it does not need are not queued.
        if (message.kind == WatchKind::beat && !out_.empty()) return flush();
        out_.append(reinterpret_cast<const char*>(&message), sizeof message);
        flush();
    }
    /// Calls on_message for the messages that have arrived, up to `most`. Returns false if the other side has closed.
    template <typename OnMessage>
    bool receive(size_t most, OnMessage&& on_message) {
        for (size_t seen = 0; seen < most; ++seen) {
            char buffer[sizeof(WatchMessage)];
            while (in_.size() < sizeof(WatchMessage)) {
                const ssize_t got = recv(fd_, buffer, sizeof(WatchMessage) - in_.size(), MSG_DONTWAIT);
                if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
                in_.append(buffer, static_cast<size_t>(got));
            }
            WatchMessage message;
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

}  // namespace colonnade
