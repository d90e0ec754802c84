// The libraries of this process by the names of their files.

#include "engine/device/loaded_libraries.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace colonnade {
namespace {

TEST(LoadedLibraries, HaveVersions) {
    EXPECT_TRUE(std::ranges::any_of(loaded_libraries(), [](const std::filesystem::path& file) {
        return file.is_absolute() && file.filename().string().starts_with("libc.so.6");
    }));
}

}  // namespace
}  // namespace colonnade
