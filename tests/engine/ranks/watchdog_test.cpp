// Strangers on the watchdog's port: they get no answer, no memory, and the port closes when all ranks have joined.

#include "engine/ranks/watchdog.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <thread>

namespace colonnade {
namespace {

/// A connection to a port of this machine; -1 if nobody listens.
int connect_to(uint16_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) return fd;
    close(fd);
    return -1;
}

/// Waits up to 5 seconds.
template <typename Condition>
bool comes_true(Condition&& condition) {
    for (int i = 0; i < 500; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
}

TEST(Watchdog, StrangersGetNothing) {
    const Watchdog::Listening listening = Watchdog::listen(true);
    std::istringstream text(listening.addresses);
    uint16_t port = 0;
    std::string address;
    text >> port >> address;
    EXPECT_EQ(address, "127.0.0.1") << "all ranks run on this machine";

    Watchdog::Options options{
        .hosts = {"here", "here"}, .socket = listening.socket, .addresses = {}, .token = 42, .timeout = 60};
    Watchdog zero(options);
    const int stranger = connect_to(port), idle = connect_to(port);
    ASSERT_GE(stranger, 0);
    // What is not a hello with the token closes the connection, however much follows.
    const std::string garbage(1 << 16, 'x');
    EXPECT_TRUE(comes_true([&] {
        return send(stranger, garbage.data(), garbage.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN;
    }));

    options.rank = 1;
    options.socket = -1;
    options.addresses = listening.addresses;
    Watchdog one(options);
    EXPECT_TRUE(comes_true([&] {
        const int fd = connect_to(port);
        if (fd >= 0) close(fd);
        return fd < 0;
    })) << "the port is still open";
    char byte = 0;
    EXPECT_LE(recv(idle, &byte, 1, 0), 0) << "the idle stranger is still connected";
    close(stranger);
    close(idle);
    std::thread other([&] { one.dismiss(); });
    zero.dismiss();
    other.join();
}

}  // namespace
}  // namespace colonnade
