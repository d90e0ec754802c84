#pragma once
// A web server on 127.0.0.1 for tests, which answers as it is told, also wrongly. One request a connection.

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace colonnade {

struct WebRequest {
    std::string method{}, path{};                  ///< path: with the query
    std::map<std::string, std::string> headers{};  ///< names in lower case
    std::string body{};
};

struct WebReply {
    int status = 200;
    std::vector<std::string> headers{};
    std::string body{};
    size_t cut = std::string::npos;  ///< the connection closes after so many bytes of the body
    double pause = 0;                ///< seconds between the head and the body
};

class WebServer {
  public:
    using Handler = std::function<WebReply(const WebRequest&)>;
    explicit WebServer(Handler handler) : handler_(std::move(handler)) {
        socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(socket_, 64) != 0 ||
            ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
            std::abort();
        port_ = ntohs(address.sin_port);
        thread_ = std::thread([this] { accept_all(); });
    }
    ~WebServer() {
        ending_ = true;
        ::shutdown(socket_, SHUT_RDWR);
        thread_.join();
        for (std::thread& thread : connections_) thread.join();
        ::close(socket_);
    }
    WebServer(const WebServer&) = delete;
    WebServer& operator=(const WebServer&) = delete;

    /// The same server under two names.
    std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
    std::string other_host() const { return fmt::format("http://localhost:{}", port_); }

    std::vector<WebRequest> requests() const {
        const std::lock_guard lock(mutex_);
        return requests_;
    }
    void forget_requests() {
        const std::lock_guard lock(mutex_);
        requests_.clear();
    }

  private:
    void accept_all() {
        while (!ending_) {
            const int connection = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
            if (connection < 0) return;
            connections_.emplace_back([this, connection] {
                serve(connection);
                ::shutdown(connection, SHUT_WR);
                ::close(connection);
            });
        }
    }

    void serve(int connection) {
        std::string text;
        char piece[4096];
        while (text.find("\r\n\r\n") == text.npos) {
            const ssize_t n = ::recv(connection, piece, sizeof piece, 0);
            if (n <= 0) return;
            text.append(piece, static_cast<size_t>(n));
        }
        WebRequest request;
        const size_t space = text.find(' ');
        request.method = text.substr(0, space);
        request.path = text.substr(space + 1, text.find(' ', space + 1) - space - 1);
        for (size_t at = text.find("\r\n") + 2; text.compare(at, 2, "\r\n") != 0;) {
            const size_t colon = text.find(": ", at), end = text.find("\r\n", at);
            std::string name = text.substr(at, colon - at);
            for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
            request.headers[name] = text.substr(colon + 2, end - colon - 2);
            at = end + 2;
        }
        if (const auto length = request.headers.find("content-length"); length != request.headers.end()) {
            request.body = text.substr(text.find("\r\n\r\n") + 4);
            while (request.body.size() < std::stoul(length->second)) {
                const ssize_t n = ::recv(connection, piece, sizeof piece, 0);
                if (n <= 0) return;
                request.body.append(piece, static_cast<size_t>(n));
            }
        }
        {
            const std::lock_guard lock(mutex_);
            requests_.push_back(request);
        }
        const WebReply reply = handler_(request);
        std::string head = fmt::format("HTTP/1.1 {} Reply\r\nConnection: close\r\n", reply.status);
        bool length = false;
        for (const std::string& header : reply.headers) {
            head += header + "\r\n";
            length = length || header.starts_with("Content-Length");
        }
        if (!length) head += fmt::format("Content-Length: {}\r\n", reply.body.size());
        send_all(connection, head + "\r\n");
        for (double left = reply.pause; left > 0 && !ending_; left -= 0.05)
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        send_all(connection, reply.body.substr(0, reply.cut));
    }

    static void send_all(int connection, const std::string& bytes) {
        for (size_t sent = 0; sent < bytes.size();) {
            const ssize_t n = ::send(connection, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
            if (n <= 0) return;
            sent += static_cast<size_t>(n);
        }
    }

    Handler handler_;
    int socket_ = -1;
    int port_ = 0;
    std::atomic<bool> ending_ = false;
    std::thread thread_;
    std::vector<std::thread> connections_;
    mutable std::mutex mutex_;
    std::vector<WebRequest> requests_;
};

}  // namespace colonnade
