// SpikeWatch: what it calls a spike, and what its limits depend on.

#include "train/step/spike_watch.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// A falling loss and a norm with log-normal noise, as runs have them.
StepNumbers usual(int64_t step) {
    const Philox random{11, 0};
    const auto draw = static_cast<uint64_t>(2 * step);
    return {step, 2 + 6 / std::sqrt(static_cast<double>(step)) + 0.05 * random.normal(draw),
            std::exp(0.25 * random.normal(draw + 1))};
}

SpikeWatch after(int64_t steps, const SpikeSettings& settings = {}) {
    SpikeWatch watch(settings);
    for (int64_t step = 1; step <= steps; ++step) watch.add(usual(step));
    return watch;
}

bool spikes(const SpikeWatch& watch, const StepNumbers& n) {
    const UpdateLimits limits = watch.limits(n.step);
    return n.loss > limits.loss || n.gradient_norm > limits.gradient_norm;
}

TEST(SpikeWatch, HasTheZScoreOfMedianAndDeviation) {
    SpikeWatch watch({.z = 4, .window = 9});
    for (int64_t i = 0; i < 9; ++i) watch.add({i + 1, static_cast<double>(i * i), 10.0 - static_cast<double>(i)});
    // Losses 0 1 4 9 16 25 36 49 64: median 16, deviations 16 15 12 7 0 9 20 33 48, their median 15.
    // Norms 10 to 2: median 6, deviations 4 3 2 1 0 1 2 3 4, their median 2.
    EXPECT_DOUBLE_EQ(watch.limits(11).loss, 16 + 4 * 1.4826 * 15);
    EXPECT_DOUBLE_EQ(watch.limits(11).gradient_norm, 6 + 4 * 1.4826 * 2);
    EXPECT_EQ(watch.figures({11, 16 + 1.4826 * 15, 6 - 1.4826 * 2}), "loss 38.24 (z 1.0), grad_norm 3.035 (z -1.0)");
}

TEST(SpikeWatch, FindsTenfoldNumbersAndNothingElse) {
    SpikeWatch watch;
    int false_alarms = 0;
    for (int64_t step = 1; step <= 20'000; ++step) {
        const StepNumbers n = usual(step);
        false_alarms += spikes(watch, n);
        if (step > 66) {
            EXPECT_TRUE(spikes(watch, {step, 10 * n.loss, n.gradient_norm})) << step;
            EXPECT_TRUE(spikes(watch, {step, n.loss, 10})) << step;
        }
        watch.add(n);
    }
    EXPECT_LE(false_alarms, 10);
}

TEST(SpikeWatch, WaitsForHalfOfTheWindow) {
    EXPECT_FALSE(spikes(after(64), {65, 1e9, 1e9}));
    EXPECT_TRUE(spikes(after(64), {66, 1e9, 1e9}));
    EXPECT_TRUE(spikes(after(65), {66, 1e9, 1e9}));
}

/// The limits of a step are the same whether its predecessor's result is known or not.
TEST(SpikeWatch, DoesNotLookAtThePredecessor) {
    for (const int64_t step : {100, 129, 130, 131, 400}) {
        const UpdateLimits early = after(step - 2).limits(step), late = after(step - 1).limits(step);
        EXPECT_EQ(early.loss, late.loss) << step;
        EXPECT_EQ(early.gradient_norm, late.gradient_norm) << step;
    }
}

TEST(SpikeWatch, ContinuesFromItsState) {
    const SpikeWatch whole = after(300);
    SpikeWatch resumed({}, after(200).recent());
    for (int64_t step = 201; step <= 300; ++step) resumed.add(usual(step));
    EXPECT_EQ(resumed.limits(301).loss, whole.limits(301).loss);
    EXPECT_EQ(resumed.recent().size(), 129u);
}

TEST(SpikeWatch, AdoptsANewLevelAfterHalfAWindow) {
    SpikeWatch watch = after(1000);
    int64_t found = 0;
    for (int64_t step = 1001; step <= 1200; ++step) {
        StepNumbers n = usual(step);
        n.gradient_norm += 20;
        found += spikes(watch, n);
        watch.add(n);
    }
    EXPECT_GE(found, 60);
    EXPECT_LE(found, 70);
}

TEST(SpikeWatch, TakesConstantNumbers) {
    SpikeWatch same, zero;
    for (int64_t step = 1; step <= 200; ++step) same.add({step, 0.5, 1}), zero.add({step, 0, 0});
    EXPECT_FALSE(spikes(same, {201, 0.5001, 1.0001}));
    EXPECT_TRUE(spikes(same, {201, 0.6, 1}));
    EXPECT_FALSE(spikes(zero, {201, 0.1, 0.1})) << "nothing to compare with";
}

}  // namespace
}  // namespace colonnade
