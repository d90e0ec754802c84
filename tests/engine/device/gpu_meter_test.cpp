// What a GPU draws while it works, from a library in place of NVML (tests/support/fake_nvml.cpp).

#include <gtest/gtest.h>

#include <thread>

#include "engine/device/nvml.h"

namespace colonnade {
namespace {

const std::string known = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, static_cast<char>(0xff)};

TEST(GpuMeter, ReadsPowerAndClock) {
    GpuMeter meter(known, FAKE_NVML);
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    const GpuMeter::Means means = meter.stop();
    ASSERT_TRUE(means.watts && means.clock_mhz);
    EXPECT_NEAR(*means.watts, 500, 100);  // a busy machine lets time pass between the counter and the clock
    EXPECT_EQ(*means.clock_mhz, 900);
    EXPECT_FALSE(meter.stop().clock_mhz);  // it has stopped
}

TEST(GpuMeter, DoesNotGuessThePowerOfAMoment) {
    GpuMeter meter(known, FAKE_NVML);
    const GpuMeter::Means means = meter.stop();
    EXPECT_FALSE(means.watts);
}

TEST(GpuMeter, HasNoMeansWithoutALibraryOrTheGpu) {
    for (const auto& [uuid, library] : {std::pair(known, "no such library"), {std::string(16, '\1'), FAKE_NVML}}) {
        const GpuMeter::Means means = GpuMeter(uuid, library).stop();
        EXPECT_FALSE(means.watts || means.clock_mhz);
    }
}

}  // namespace
}  // namespace colonnade
