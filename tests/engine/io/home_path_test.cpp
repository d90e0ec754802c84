// Paths in the home folder, expanded and abbreviated.

#include "engine/io/home_path.h"

#include <cstdlib>

#include "tests/support/expect_error.h"

namespace colonnade {
namespace {

TEST(HomePath, IsExpandedAndAbbreviated) {
    setenv("HOME", "/home/ada", 1);
    EXPECT_EQ(expand_home("~/models/a"), "/home/ada/models/a");
    EXPECT_EQ(abbreviate_home("/home/ada/models/a"), "~/models/a");
    for (const char* path : {"/home/adam/a", "models/~/a", "/home/ada", "~ada/a"}) {
        EXPECT_EQ(expand_home(path), path);
        EXPECT_EQ(abbreviate_home(path), path);
    }
    unsetenv("HOME");
    EXPECT_EQ(abbreviate_home("/home/ada/models/a"), "/home/ada/models/a");
    expect_error(Exit::config, "~/models/a: HOME is not set", [] { expand_home("~/models/a"); });
    setenv("HOME", "/", 1);
    EXPECT_EQ(abbreviate_home("/etc/a"), "/etc/a");
}

}  // namespace
}  // namespace colonnade
