// selftest finds a planted fault. Each program planted_<fault>_test has one faulty source (engine/device/planted_bug.h),
// which the linker takes in place of the library's.

#include "engine/device/planted_bug.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/test_gpu.h"
#include "train/selftest/selftest.h"

namespace colonnade {
namespace {

/// Runs the checks of these names.
std::vector<CheckResult> results_of(Gpu* gpu, const std::vector<std::string>& names) {
    std::vector<Check> chosen;
    for (Check& check : built_in_checks(gpu))
        if (std::ranges::find(names, check.name) != names.end()) chosen.push_back(std::move(check));
    EXPECT_EQ(chosen.size(), names.size());
    return run_checks(chosen);
}

void expect_found(Gpu* gpu) {
    static_assert(planted_bug != PlantedBug::none);
    // Checks that find it, and one that it does not concern.
    const std::vector<std::string> finders =
        planted_bug == PlantedBug::gradient ? std::vector<std::string>{"gradients, sft", "gradients, dpo"}
        : planted_bug == PlantedBug::mask   ? std::vector<std::string>{"packed, sft", "packed, grpo", "prefix trees"}
                                            : std::vector<std::string>{"packed, sft", "accumulation", "ranks"};
    for (const CheckResult& result : results_of(gpu, finders)) {
        EXPECT_EQ(result.verdict, Verdict::failed) << table_of({result});
        EXPECT_EQ(result.error, "");
        EXPECT_GT(result.finding.found, 3 * result.finding.bound) << result.name;
    }
    const std::vector<CheckResult> others = results_of(gpu, {"attention, head dim 64"});
    EXPECT_TRUE(all_pass(others)) << table_of(others);
}

TEST(PlantedBug, IsFoundOnTheCpu) {
    expect_found(nullptr);
}

TEST(PlantedBug, IsFoundOnAGpu) {
    if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
    expect_found(test_gpu());
}

}  // namespace
}  // namespace colonnade
