// The schedule and the loader: every sample once per epoch, and the same steps for any first step and number of ranks.

#include "data/packing/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "engine/device/philox.h"
#include "tests/support/flat_sample.h"

namespace colonnade {
namespace {

/// Samples of 2 to 40 tokens, all of them i + 1 in sample i. With pairs, every third sample of four tokens or more has
/// a stem and two branches.
TokenStore numbered_store(int64_t samples, bool with_pairs = false) {
    TokenStore store;
    store.statistics.files = {{.path = "numbers.jsonl", .type = "tokens", .rows = samples, .samples = samples}};
    const Philox random{11, 0};
    for (int64_t i = 0; i < samples; ++i) {
        const size_t length = 2 + random.below(static_cast<uint64_t>(i), 39);
        FlatSample sample{std::vector<int32_t>(length, static_cast<int32_t>(i + 1)), std::vector<float>(length, 1)};
        if (with_pairs && i % 3 == 0 && length >= 4) sample.begins = {1, static_cast<int32_t>(length / 2)};
        store.add(sample_of(sample), 0, i + 1);
    }
    return store;
}

PackScheduleSettings settings(StepLayout layout, double epochs = 2) {
    return {.packing = {.packing_length = 64, .window = 50}, .layout = layout, .epochs = epochs};
}

std::vector<LoadedBatch> load_all(const TokenStore& store, const PackScheduleSettings& schedule,
                                  LoaderOptions options = {}) {
    Loader loader(store, PackSchedule(store.lengths(), schedule), options);
    std::vector<LoadedBatch> batches;
    while (auto batch = loader.next()) batches.push_back(std::move(*batch));
    EXPECT_FALSE(loader.next());
    return batches;
}

std::vector<int64_t> samples_in(const Batch& batch) {
    std::vector<int64_t> samples;
    for (size_t i = 0; i < batch.tokens.size(); ++i) {
        if (batch.tokens[i] > 0 && batch.positions[i] == 0) samples.push_back(batch.tokens[i] - 1);
    }
    return samples;
}

TEST(Loader, WithoutDocumentMaskAPackIsOneLongText) {
    const TokenStore store = numbered_store(60);
    const auto apart = load_all(store, settings({.per_device_batch = 2}));
    const auto joined = load_all(store, settings({.per_device_batch = 2}), {.document_mask = false});
    ASSERT_EQ(apart.size(), joined.size());
    for (size_t b = 0; b < apart.size(); ++b) {
        const Batch &x = apart[b].batch, &y = joined[b].batch;
        EXPECT_EQ(x.tokens, y.tokens);
        EXPECT_EQ(x.rows, y.rows);
        EXPECT_EQ(x.target_weight, y.target_weight);
        for (int64_t p = 0; p < y.packs; ++p) {
            const auto* tokens = y.tokens.data() + p * y.length;
            const auto used =
                static_cast<int32_t>(std::count_if(tokens, tokens + y.length, [](int32_t t) { return t > 0; }));
            for (int32_t i = 0; i < used; ++i) {
                EXPECT_EQ(y.positions[static_cast<size_t>(p * y.length + i)], i);
                EXPECT_EQ(y.mask.lts[static_cast<size_t>(p * y.length + i)], used);
            }
        }
    }
}

TEST(Loader, EverySampleOncePerEpochAndTotalsKnownBefore) {
    const TokenStore store = numbered_store(201, true);
    const StepLayout layout{.per_device_batch = 2, .accumulation = 3};
    const auto batches = load_all(store, settings(layout));
    PackSchedule schedule(store.lengths(), settings(layout));
    EXPECT_EQ(static_cast<int64_t>(batches.size()), 3 * schedule.total_steps());
    EXPECT_EQ(schedule.total_steps(), schedule.steps_in(0) + schedule.steps_in(1));

    std::map<int64_t, std::vector<int64_t>> by_epoch;
    std::map<int64_t, StepTotals> by_step;
    for (size_t i = 0; i < batches.size(); ++i) {
        const LoadedBatch& b = batches[i];
        EXPECT_EQ(b.step, static_cast<int64_t>(i) / 3);
        EXPECT_EQ(b.micro, static_cast<int64_t>(i) % 3);
        EXPECT_EQ(b.epoch_steps, schedule.steps_in(b.epoch));
        EXPECT_EQ(b.step, b.epoch_step + (b.epoch == 0 ? 0 : schedule.steps_in(0)));
        EXPECT_EQ(b.batch.packs, 2);
        for (const int64_t sample : samples_in(b.batch)) by_epoch[b.epoch].push_back(sample);
        by_step[b.step].weight += b.batch.target_weight;
        by_step[b.step].pairs += static_cast<double>(b.batch.pairs.size());
        by_step[b.step].pair_weight += b.batch.pair_weight;
        by_step[b.step].ranking_weight += b.batch.ranking_weight;
        by_step[b.step].samples += b.batch.samples;
        by_step[b.step].tokens += b.batch.real_tokens;
    }
    for (const LoadedBatch& b : batches) {
        EXPECT_EQ(b.step_totals.weight, by_step[b.step].weight);
        EXPECT_EQ(b.step_totals.pairs, by_step[b.step].pairs);
        EXPECT_EQ(b.step_totals.pair_weight, by_step[b.step].pair_weight);
        EXPECT_EQ(b.step_totals.ranking_weight, by_step[b.step].ranking_weight);
        EXPECT_GT(b.step_totals.pairs, 0);
        EXPECT_LT(b.step_totals.pairs, static_cast<double>(b.step_totals.samples));
        EXPECT_EQ(b.step_totals.samples, by_step[b.step].samples);
        EXPECT_EQ(b.step_totals.tokens, by_step[b.step].tokens);
    }
    std::vector<int64_t> all(201);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_NE(by_epoch[0], by_epoch[1]);
    for (auto& [epoch, samples] : by_epoch) {
        std::sort(samples.begin(), samples.end());
        EXPECT_EQ(samples, all) << "epoch " << epoch;
    }
}

TEST(Loader, BeginningAnywhereGivesTheSameSteps) {
    const TokenStore store = numbered_store(120);
    const StepLayout layout{.per_device_batch = 2, .accumulation = 2};
    const auto whole = load_all(store, settings(layout, 3));
    const int64_t steps = static_cast<int64_t>(whole.size()) / 2;
    for (int64_t start = 0; start <= steps; start += 5) {
        const auto rest = load_all(store, settings(layout, 3), {.start_step = start});
        ASSERT_EQ(rest.size(), whole.size() - static_cast<size_t>(2 * start));
        for (size_t i = 0; i < rest.size(); ++i) {
            const LoadedBatch& expected = whole[i + static_cast<size_t>(2 * start)];
            EXPECT_EQ(rest[i].step, expected.step);
            EXPECT_EQ(rest[i].epoch, expected.epoch);
            EXPECT_EQ(rest[i].batch.tokens, expected.batch.tokens);
            EXPECT_EQ(rest[i].batch.rows, expected.batch.rows);
        }
    }
}

TEST(Loader, RanksShareTheStepThatOneRankWouldTake) {
    const TokenStore store = numbered_store(150);
    const auto alone = load_all(store, settings({.per_device_batch = 1, .accumulation = 4, .ranks = 1}));
    const StepLayout shared{.per_device_batch = 1, .accumulation = 2, .ranks = 2};
    const auto rank0 = load_all(store, settings(shared), {.rank = 0}),
               rank1 = load_all(store, settings(shared), {.rank = 1});
    ASSERT_EQ(rank0.size() * 2, alone.size());
    for (size_t i = 0; i < rank0.size(); ++i) {
        const size_t turn = i % 2;  // every other micro-step goes to the ranks backwards
        EXPECT_EQ(rank0[i].batch.tokens, alone[2 * i + turn].batch.tokens);
        EXPECT_EQ(rank1[i].batch.tokens, alone[2 * i + 1 - turn].batch.tokens);
        EXPECT_EQ(rank0[i].step_totals.weight, alone[2 * i].step_totals.weight);
    }
}

TEST(Loader, TheLastStepIsFilledWithEmptyPacks) {
    const TokenStore store = numbered_store(3);
    const auto batches = load_all(store, settings({.per_device_batch = 2, .accumulation = 8}, 1));
    ASSERT_EQ(batches.size(), 8u);
    EXPECT_EQ(batches.back().batch.samples, 0);
    EXPECT_EQ(batches.back().batch.packs, 2);
    EXPECT_TRUE(batches.back().batch.rows.empty());
    EXPECT_EQ(batches.back().step_totals.samples, 3);
}

TEST(Loader, EvaluationIsOnePassInOrder) {
    const TokenStore store = numbered_store(40);
    PackScheduleSettings evaluation = settings({}, 1);
    evaluation.packing.shuffle = false;
    evaluation.packing.strategy = PackStrategy::sequential;
    std::vector<int64_t> seen, all(40);
    std::iota(all.begin(), all.end(), 0);
    for (const auto& b : load_all(store, evaluation)) {
        for (const int64_t sample : samples_in(b.batch)) seen.push_back(sample);
    }
    EXPECT_EQ(seen, all);
}

TEST(Loader, LengthsAreAligned) {
    const TokenStore store = numbered_store(40);
    for (const auto& b : load_all(store, settings({}, 1), {.align = 16})) EXPECT_EQ(b.batch.length % 16, 0);
}

TEST(Loader, WhatTheThreadThrowsIsThrownByNext) {
    TokenStore store = numbered_store(4);
    store.add({.sequences = {{.shared = 1, .tokens = {9, 9, 9}}}}, 0, 5);  // shares a token with nothing
    PackScheduleSettings in_order = settings({}, 1);
    in_order.packing = {.packing_length = 64, .strategy = PackStrategy::none, .shuffle = false};
    Loader loader(store, PackSchedule(store.lengths(), in_order));
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(loader.next());
    for (int i = 0; i < 2; ++i) EXPECT_THROW(loader.next(), Error);
}

TEST(Loader, StopsWhereverItIs) {
    const TokenStore store = numbered_store(200);
    for (int taken = 0; taken < 5; ++taken) {
        Loader loader(store, PackSchedule(store.lengths(), settings({}, 100)));
        for (int i = 0; i < taken; ++i) EXPECT_TRUE(loader.next());
    }
}

TEST(PackSchedule, StepsOfFractionsAndLimits) {
    const std::vector<int64_t> lengths(30, 64);  // 30 packs: one sample fills one
    const auto total = [&](double epochs, int64_t max_steps, int64_t batch) {
        PackScheduleSettings s = settings({.per_device_batch = batch}, epochs);
        s.max_steps = max_steps;
        return PackSchedule(lengths, s).total_steps();
    };
    EXPECT_EQ(total(1, 0, 1), 30);
    EXPECT_EQ(total(3, 0, 4), 24);  // 7.5 packs of 4 are 8 steps
    EXPECT_EQ(total(0.1, 0, 1), 3);
    EXPECT_EQ(total(2.5, 0, 1), 75);
    EXPECT_EQ(total(0.001, 0, 1), 1);
    EXPECT_EQ(total(3, 7, 1), 7);
    EXPECT_EQ(total(1, 100, 1), 100);
}

TEST(PackSchedule, LocatesStepsInOrderAndOutOfIt) {
    PackSchedule forward(numbered_store(100).lengths(), settings({.per_device_batch = 3}, 4)), backward = forward;
    std::vector<std::pair<int64_t, int64_t>> positions;
    for (int64_t step = 0; step < forward.total_steps(); ++step) {
        const auto [epoch, at] = forward.locate(step);
        positions.emplace_back(epoch, at);
    }
    std::vector<std::pair<int64_t, int64_t>> expected;
    for (int64_t epoch = 0; epoch < 4; ++epoch) {
        for (int64_t at = 0; at < forward.steps_in(epoch); ++at) expected.emplace_back(epoch, at);
    }
    EXPECT_EQ(positions, expected);
    for (int64_t step = forward.total_steps(); step-- > 0;) {
        const auto [epoch, at] = backward.locate(step);
        EXPECT_EQ(std::pair(epoch, at), expected[static_cast<size_t>(step)]);
    }
}

/// Runs of any length are scheduled at once, and have the packs of short runs.
TEST(PackSchedule, LongRunsArePlannedLazily) {
    const std::vector<int64_t> lengths = numbered_store(1000).lengths();
    PackScheduleSettings by_steps = settings({.per_device_batch = 3}),
                         by_epochs = settings({.per_device_batch = 3}, 1e9);
    by_steps.max_steps = 1'000'000'000;
    PackSchedule steps(lengths, by_steps), epochs(lengths, by_epochs);
    EXPECT_EQ(steps.total_steps(), 1'000'000'000);
    EXPECT_FALSE(steps.extrapolated());
    EXPECT_TRUE(epochs.extrapolated());
    PackSchedule brief(lengths, settings({.per_device_batch = 3}, 4));
    for (PackSchedule* lazy : {&steps, &epochs})
        for (int64_t step = 0; step < brief.total_steps(); ++step) {
            const auto [epoch, at] = lazy->locate(step);
            const auto expected = brief.locate(step);
            EXPECT_EQ(std::pair(epoch, at), std::pair(expected.epoch, expected.step));
            EXPECT_EQ(lazy->plan(epoch).samples, brief.plan(epoch).samples);
            EXPECT_EQ(lazy->plan(epoch).begins, brief.plan(epoch).begins);
        }
}

TEST(PackSchedule, ExtrapolatesOnlyBeyondTheEpochsThatItCounts) {
    const std::vector<int64_t> lengths = numbered_store(100'000).lengths();
    PackScheduleSettings s = settings({.per_device_batch = 3});
    const auto schedule = [&](double epochs) {
        s.epochs = epochs;
        return PackSchedule(lengths, s);
    };
    PackSchedule counted = schedule(40);
    ASSERT_EQ(counted.counted_epochs(), 40);
    EXPECT_FALSE(counted.extrapolated());
    int64_t steps = 0;
    for (int64_t epoch = 0; epoch < 40; ++epoch) steps += counted.steps_in(epoch);
    EXPECT_EQ(counted.total_steps(), steps);
    const PackSchedule more = schedule(44.5);
    EXPECT_TRUE(more.extrapolated());
    for (int64_t epoch = 40; epoch < 44; ++epoch) steps += counted.steps_in(epoch);
    steps += counted.steps_in(44) / 2;
    EXPECT_NEAR(static_cast<double>(more.total_steps()), static_cast<double>(steps), 1e-4 * static_cast<double>(steps));
}

TEST(PackSchedule, SettingsThatCannotWork) {
    const std::vector<int64_t> lengths = {3, 100};
    const auto with = [](auto change) {
        PackScheduleSettings s = settings({});
        s.packing.packing_length = 128;
        change(s);
        return s;
    };
    const std::tuple<PackScheduleSettings, Exit, const char*> cases[] = {
        {with([](auto& s) { s.layout.ranks = 0; }), Exit::config, "each must be at least 1"},
        {with([](auto& s) { s.epochs = 0; }), Exit::config, "0 epochs, expected more than 0"},
        {with([](auto& s) { s.epochs = std::numeric_limits<double>::quiet_NaN(); }), Exit::config, "nan epochs"},
        {with([](auto& s) { s.max_steps = -1; }), Exit::config, "max_steps is -1"},
        {with([](auto& s) { s.packing.packing_length = 64, s.max_steps = 5; }), Exit::config,
         "1 of 2 samples are longer"},
    };
    for (const auto& [s, exit, message] : cases) {
        try {
            PackSchedule schedule(lengths, s);
            FAIL() << "accepted: " << message;
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), exit);
            EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
        }
    }
    try {
        PackSchedule schedule({}, settings({}));
        FAIL() << "accepted no samples";
    } catch (const Error& e) {
        EXPECT_EQ(e.exit(), Exit::data);
    }
}

}  // namespace
}  // namespace colonnade
