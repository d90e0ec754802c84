// selftest: every check passes on every device, on a user's run too; a difference, a NaN or an error is a failure. Planted
// faults are found by planted_bug.cpp.

#include "train/selftest/selftest.h"

#include <cmath>

#include "tests/support/test_gpu.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

class SelfTest : public testing::TestWithParam<Device> {};

TEST_P(SelfTest, Passes) {
    const bool on_gpu = GetParam() == Device::cuda;
    if (on_gpu && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    const std::vector<CheckResult> results = run_checks(built_in_checks(on_gpu ? test_gpu() : nullptr));
    EXPECT_GE(results.size(), 18u);
    for (const CheckResult& result : results) EXPECT_EQ(result.verdict, Verdict::ok) << table_of({result});
}

INSTANTIATE_TEST_SUITE_P(Devices, SelfTest, testing::Values(Device::cpu, Device::cuda),
                         [](const auto& device) { return name_of(device.param); });

TEST(Checks, SayWhatFailed) {
    const auto found = [](double value, double bound) {
        return [=] { return Finding{.found = value, .bound = bound, .where = "q_proj"}; };
    };
    const std::vector<CheckResult> results =
        run_checks({{"good", "a", found(1e-6, 1e-5)},
                    {"at the bound", "b", found(1e-5, 1e-5)},
                    {"beyond", "c", found(2e-5, 1e-5)},
                    {"unknown", "d", found(std::nan(""), 1e-5)},
                    {"bits", "e", found(1, 0)},
                    {"broken", "f", []() -> Finding { throw std::runtime_error("no such thing"); }},
                    {"left out", "g", [] { return Finding{.skipped = "no space"}; }}});
    std::vector<Verdict> verdicts;
    for (const CheckResult& result : results) verdicts.push_back(result.verdict);
    using enum Verdict;
    EXPECT_EQ(verdicts, (std::vector{ok, ok, failed, failed, failed, failed, skipped}));
    EXPECT_FALSE(all_pass(results));
    EXPECT_TRUE(all_pass({results[0], results[6]}));
    const std::string table = table_of(results);
    for (const char* part :
         {"2.0e-05  1.0e-05  FAILED", "largest in q_proj", "no such thing", "not compared: no space"})
        EXPECT_TRUE(has(table, part)) << table;
}

TEST(Checks, TheWorstIsFarthestBeyondItsBound) {
    const Finding small{.found = 3e-6, .bound = 1e-6, .where = "small"},
        large{.found = 1, .bound = 2, .where = "large"}, unknown{.found = std::nan(""), .bound = 1, .where = "unknown"};
    EXPECT_EQ(worst_of({large, small}).where, "small");
    EXPECT_EQ(worst_of({large, unknown, small}).where, "unknown");
}

class SelfTestOfRun : public RunTest {
  protected:
    Program::Result selftest(std::vector<std::string> words) const {
        words.insert(words.begin(), "selftest");
        return run("colonnade", words);
    }
};

TEST_F(SelfTestOfRun, ChecksTheRunsModelAndData) {
    const Program::Result result = selftest({config(), "--device", "cpu", "--tokens", "300", output("none")});
    EXPECT_EQ(result.exit, 0) << result.out << result.err;
    for (const char* name : {"packed ", "accumulation ", "ranks ", "same bits ", "resume ", "generation "})
        EXPECT_TRUE(has(result.out, name)) << result.out;
    EXPECT_FALSE(has(result.out, "skipped")) << result.out;
    EXPECT_FALSE(path_exists(path("none"))) << "it left files";
}

TEST_F(SelfTestOfRun, OneSampleIsNoAccumulation) {
    const Program::Result result = selftest({config(), "--device=cpu", "--tokens", "1", output("none")});
    EXPECT_EQ(result.exit, 0) << result.out << result.err;
    EXPECT_TRUE(has(result.out, "skipped")) << result.out;
    EXPECT_TRUE(has(result.out, "not compared: one sample has all the tokens of --tokens; allow more")) << result.out;
}

TEST_F(SelfTestOfRun, RefusesWhatItCannotUse) {
    const std::pair<std::vector<std::string>, const char*> cases[] = {
        {{"learning_rate=1"}, "learning_rate=1: keys belong to a run"},
        {{"--tokens", "5"}, "--tokens belongs to a run"},
        {{"--device", "tpu"}, "--device"},
        {{path("missing.yaml")}, "missing.yaml"}};
    for (const auto& [words, message] : cases) {
        const Program::Result result = selftest(words);
        EXPECT_NE(result.exit, 0);
        EXPECT_TRUE(has(result.err, message)) << result.err;
    }
}

}  // namespace
}  // namespace colonnade
