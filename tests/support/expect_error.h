#pragma once
// expect_error(): a body must throw a certain Error.

#include <gtest/gtest.h>

#include <string>

#include "engine/device/error.h"

namespace colonnade {

/// Expects `body` to throw an Error with this exit code and a one-line message that contains `part`. Returns the
/// message.
template <typename Body>
std::string expect_error(Exit exit, const std::string& part, Body&& body) {
    try {
        body();
    } catch (const Error& e) {
        EXPECT_EQ(static_cast<int>(e.exit()), static_cast<int>(exit)) << e.what();
        EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what() << "\n  lacks: " << part;
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "more than one line: " << e.what();
        return e.what();
    }
    ADD_FAILURE() << "no error, expected: " << part;
    return {};
}

}  // namespace colonnade
