#pragma once
// For tests of files: a folder per test, and code that runs in a child process.

#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/expect_error.h"

namespace colonnade {

/// Gives every test a new, empty folder and removes it afterwards.
class FileTest : public testing::Test {
  protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        folder_ = fmt::format("{}colonnade_{}_{}", testing::TempDir(), test->test_suite_name(), test->name());
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_);
        folder_ = std::filesystem::canonical(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::string path(const std::string& name) const { return folder_ + "/" + name; }
    /// The names in a folder, sorted and separated by spaces.
    static std::string listing(const std::string& folder) {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
        std::sort(names.begin(), names.end());
        return fmt::format("{}", fmt::join(names, " "));
    }

    std::string folder_;
};

inline void spill(const std::string& path, std::string_view content) {
    std::filesystem::remove(path);  // some file systems sync a file that is overwritten in place, which is slow
    std::ofstream(path, std::ios::binary) << content;
}

inline std::string slurp(const std::string& path) {
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    return std::move(content).str();
}

/// Runs `body` in a child process. Returns its result, the exit code of its Error, or 128 + signal.
template <typename Body>
int exit_of_child(Body&& body) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);  // an endless loop is a failure, too
        int status = 99;
        try {
            status = body();
        } catch (const Error& e) {
            status = static_cast<int>(e.exit());
        } catch (...) {
        }
        std::fflush(nullptr);  // output of failed expectations
        _exit(status);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace colonnade
