// The libraries of this process by the names of their files, and functions in them.

#include "engine/device/loaded_libraries.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace colonnade {
namespace {

TEST(LoadedLibraries, HaveVersionsAndFunctions) {
    const std::vector<std::string> libraries = loaded_libraries();
    EXPECT_TRUE(std::ranges::any_of(libraries, [](const std::string& name) { return name.starts_with("libc.so.6"); }));
    EXPECT_NE(loaded_function("malloc"), nullptr);
    EXPECT_EQ(loaded_function("no_such_function_anywhere"), nullptr);
}

}  // namespace
}  // namespace colonnade
