// Sampling: draws follow the exact distribution of temperature, top_k, top_p and min_p; penalties; the same draws on
// both devices.

#include "layers/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/device/device_memory.h"
#include "engine/device/philox.h"
#include "tests/support/device_case.h"

namespace colonnade {
namespace {

const std::vector<float> few = {1.0f, -0.5f, 2.0f, 0.3f, 1.9f, -3.0f, 0.3f};

/// The probabilities by the definitions, on sorted lists and in double.
std::vector<double> exact(const std::vector<float>& logits, const Sampling& s) {
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, std::greater<>(), [&](size_t i) { return logits[i]; });
    std::vector<double> p(logits.size());
    for (size_t i = 0; i < p.size(); ++i)
        p[i] = std::exp((static_cast<double>(logits[i]) - logits[order[0]]) / static_cast<double>(s.temperature));
    const auto drop_below = [&](float last) {
        for (size_t i = 0; i < p.size(); ++i)
            if (logits[i] < last) p[i] = 0;
    };
    if (s.top_k > 0 && static_cast<size_t>(s.top_k) < p.size())
        drop_below(logits[order[static_cast<size_t>(s.top_k) - 1]]);
    if (s.top_p < 1) {
        const double sum = std::accumulate(p.begin(), p.end(), 0.0);
        double mass = 0;
        size_t last = 0;
        for (size_t n = 0; n < order.size() && (n == 0 || mass < static_cast<double>(s.top_p) * sum); ++n)
            mass += p[last = order[n]];
        drop_below(logits[last]);
    }
    for (double& x : p)
        if (x < static_cast<double>(s.min_p)) x = 0;
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
    return p;
}

/// Chi-square of counts, over its degrees of freedom's mean, in standard deviations.
double deviation(const std::vector<int>& counts, const std::vector<double>& expected) {
    const double draws = std::accumulate(counts.begin(), counts.end(), 0.0);
    double chi2 = 0, degrees = -1;
    for (size_t i = 0; i < counts.size(); ++i) {
        if (expected[i] == 0) {
            EXPECT_EQ(counts[i], 0) << "token " << i << " may not be drawn";
            continue;
        }
        const double mean = draws * expected[i];
        chi2 += (counts[i] - mean) * (counts[i] - mean) / mean;
        ++degrees;
    }
    return degrees > 0 ? (chi2 - degrees) / std::sqrt(2 * degrees) : chi2;
}

struct Case {
    Sampling sampling;
    int64_t kept;  ///< tokens that may be drawn
};
const std::vector<Case> cases{
    {{.temperature = 1}, 7},
    {{.temperature = 0.7f}, 7},
    {{.temperature = 3}, 7},
    {{.temperature = 1, .top_p = 0.8f}, 3},
    {{.temperature = 0.5f, .top_p = 0.9f}, 3},
    {{.temperature = 1, .top_p = 0.5f}, 2},
    {{.temperature = 1, .top_p = 0.1f}, 1},
    {{.temperature = 1, .top_p = 0}, 1},
    {{.temperature = 1, .top_k = 3}, 3},
    {{.temperature = 1, .top_k = 4}, 5},  // a tie
    {{.temperature = 1, .top_k = 1}, 1},
    {{.temperature = 1, .top_k = 100}, 7},
    {{.temperature = 1, .min_p = 0.3f}, 3},
    {{.temperature = 2, .min_p = 0.3f}, 5},
    {{.temperature = 1, .min_p = 1}, 1},
    {{.temperature = 1, .top_p = 0.6f, .top_k = 3}, 2},  // the share is of what top_k left
    {{.temperature = 2, .top_p = 0.95f, .min_p = 0.4f, .top_k = 6}, 5},
};

TEST(ChooseToken, DrawsFollowTheExactDistribution) {
    for (const auto& [sampling, kept] : cases) {
        Sampling s = sampling;
        s.seed = 9;
        const std::vector<double> expected = exact(few, s);
        std::vector<int> counts(few.size());
        for (uint64_t i = 0; i < 40'000; ++i) ++counts[static_cast<size_t>(choose_token(few, s, i))];
        const auto what =
            fmt::format("temperature {}, top_k {}, top_p {}, min_p {}", s.temperature, s.top_k, s.top_p, s.min_p);
        EXPECT_EQ(std::ranges::count_if(expected, [](double p) { return p > 0; }), kept) << what;
        EXPECT_LT(deviation(counts, expected), 5) << what;
    }
}

TEST(ChooseToken, DrawsFromALargeVocabulary) {
    std::vector<float> logits(50'000);
    const Philox random{4, 0};
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(2 * random.normal(i));
    for (const Sampling& s :
         {Sampling{.temperature = 1, .top_p = 0.9f}, Sampling{.temperature = 0.4f, .top_p = 0.95f, .top_k = 40},
          Sampling{.temperature = 1, .min_p = 0.05f}}) {
        const std::vector<double> expected = exact(logits, s);
        for (uint64_t i = 0; i < 300; ++i) EXPECT_GT(expected[static_cast<size_t>(choose_token(logits, s, i))], 0);
    }
}

TEST(ChooseToken, GreedyIsTheFirstOfTheLargest) {
    EXPECT_EQ(choose_token(few, {}, 0), 2);
    const std::vector<float> tied = {0, 5, 5, 1};
    EXPECT_EQ(choose_token(tied, {}, 3), 1);
    const int32_t cold = choose_token(tied, {.temperature = 1e-30f}, 0);
    EXPECT_TRUE(cold == 1 || cold == 2) << cold;
    const std::vector<float> masked = {-INFINITY, 0, -INFINITY};
    for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(choose_token(masked, {.temperature = 5}, i), 1);
}

TEST(ChooseToken, SeedAndStreamDecide) {
    const auto draws = [](uint64_t seed, uint64_t stream) {
        std::vector<int32_t> tokens;
        for (uint64_t i = 0; i < 50; ++i)
            tokens.push_back(choose_token(few, {.temperature = 2, .seed = seed, .stream = stream}, i));
        return tokens;
    };
    EXPECT_EQ(draws(1, 0), draws(1, 0));
    EXPECT_NE(draws(1, 0), draws(2, 0));
    EXPECT_NE(draws(1, 0), draws(1, 1));
}

TEST(ChooseToken, PenalisesWhatHasOccurred) {
    // Tokens 2 and 4 have occurred, and so has 1, whose logit is negative.
    const std::vector<int32_t> seen = {1 << 2 | 1 << 4 | 1 << 1};
    EXPECT_EQ(choose_token(few, {.repetition_penalty = 1.05f}, 0, seen), 2);  // 2 / 1.05 = 1.90, above the others
    EXPECT_EQ(choose_token(few, {.repetition_penalty = 3}, 0, seen), 0);
    std::vector<float> changed = few;
    changed[2] /= 1.5f, changed[4] /= 1.5f, changed[1] *= 1.5f;
    for (uint64_t i = 0; i < 200; ++i)
        EXPECT_EQ(choose_token(few, {.temperature = 1, .repetition_penalty = 1.5f}, i, seen),
                  choose_token(changed, {.temperature = 1}, i));
}

TEST(ChooseToken, RefusesWhatIsNotANumber) {
    for (const float temperature : {0.0f, 1.0f})
        for (const float bad : {std::nanf(""), INFINITY}) {
            std::vector<float> logits = few;
            logits[4] = bad;
            EXPECT_EQ(choose_token(logits, {.temperature = temperature}, 0), -1);
        }
    EXPECT_EQ(choose_token(std::vector<float>(3, -INFINITY), {}, 0), -1);
}

// --- The op -------------------------------------------------------------------------------------------------------

struct SampleTokensOnDevice : DeviceCase {
    std::vector<int32_t> numbers(const Tensor& t) const {
        const std::vector<double> values = read(t);
        return {values.begin(), values.end()};
    }
};

TEST_P(SampleTokensOnDevice, DrawsAsChooseTokenDoes) {
    const Context ctx = context();
    for (const int64_t vocab : {7, 31, 1000, 32003, 128256}) {
        Arena arena(GetParam(), size_t{32} << 20);
        constexpr int64_t rows = 9, steps = 4, slots = 12;
        const Tensor logits = arena.tensor("", DType::f32, {rows, vocab});
        SamplingRows all = SamplingRows::lay_out(arena, slots, vocab);
        const SamplingRows state = all.first(rows);
        const std::vector<Sampling> settings = {{},
                                                {.temperature = 1},
                                                {.temperature = 0.8f, .top_p = 0.9f},
                                                {.temperature = 1.3f, .top_k = 5},
                                                {.temperature = 1, .min_p = 0.1f},
                                                {.temperature = 1, .top_p = 0.7f, .min_p = 0.02f, .top_k = 50},
                                                {.repetition_penalty = 1.4f},
                                                {.temperature = 1, .top_p = 0.5f, .repetition_penalty = 2},
                                                {.temperature = 1}};
        std::vector<float> values(static_cast<size_t>(rows * vocab));
        std::vector<int32_t> zeros(rows), slot(rows), position(rows, 10), seen(static_cast<size_t>(all.seen.numel()));
        std::iota(slot.rbegin(), slot.rend(), 2);
        colonnade::put(ctx, state.tokens, zeros);
        colonnade::put(ctx, state.drawn, zeros);
        colonnade::put(ctx, state.slots, slot);
        colonnade::put(ctx, state.positions, position);
        colonnade::put(ctx, all.seen, seen);
        colonnade::put(ctx, state.settings, settings.data());
        const auto words = static_cast<size_t>(all.seen.size(1));
        int same = 0;
        for (int64_t step = 0; step < steps; ++step) {
            const Philox random{static_cast<uint64_t>(vocab), static_cast<uint64_t>(step)};
            // Steps of 1/64, so that there are ties.
            for (size_t i = 0; i < values.size(); ++i)
                values[i] = static_cast<float>(std::nearbyint(64 * 2.5 * random.normal(i)) / 64);
            colonnade::put(ctx, logits, values);
            sample_tokens(ctx, {.logits = logits, .rows = state});
            const std::vector<int32_t> chosen = numbers(state.chosen);
            EXPECT_EQ(chosen, numbers(state.tokens));
            for (size_t r = 0; r < rows; ++r) {
                const auto mine = std::span(seen).subspan(static_cast<size_t>(slot[r]) * words, words);
                const int32_t expected =
                    choose_token(std::span(values).subspan(r * static_cast<size_t>(vocab), static_cast<size_t>(vocab)),
                                 settings[r], static_cast<uint64_t>(step), mine);
                // exp of the two devices may differ in its last digit, and a draw may fall between.
                same += chosen[r] == expected;
                ASSERT_TRUE(chosen[r] >= 0 && chosen[r] < vocab) << chosen[r];
                if (settings[r].temperature == 0) {
                    EXPECT_EQ(chosen[r], expected) << "row " << r;
                }
                int32_t& word = mine[static_cast<size_t>(chosen[r] / 32)];
                word = static_cast<int32_t>(static_cast<uint32_t>(word) | 1u << (chosen[r] % 32));
            }
            EXPECT_EQ(numbers(all.seen), seen);
            EXPECT_EQ(numbers(state.positions), std::vector<int32_t>(rows, static_cast<int32_t>(11 + step)));
            EXPECT_EQ(numbers(state.drawn), std::vector<int32_t>(rows, static_cast<int32_t>(1 + step)));
        }
        EXPECT_GE(same, on_gpu() ? rows * steps - 1 : rows * steps) << "vocabulary of " << vocab;
    }
}

TEST_P(SampleTokensOnDevice, DrawsFollowTheExactDistribution) {
    const Context ctx = context();
    constexpr int64_t rows = 500;
    Arena arena(GetParam(), size_t{8} << 20);
    const Tensor logits = arena.tensor("", DType::f32, {rows, std::ssize(few)});
    const SamplingRows state = SamplingRows::lay_out(arena, rows, std::ssize(few));
    std::vector<float> values;
    for (int64_t r = 0; r < rows; ++r) values.insert(values.end(), few.begin(), few.end());
    colonnade::put(ctx, logits, values);
    for (const auto& [sampling, kept] : cases) {
        std::vector<Sampling> settings(rows, sampling);
        std::vector<int32_t> numbers_of_rows(rows);
        std::iota(numbers_of_rows.begin(), numbers_of_rows.end(), 0);
        for (size_t r = 0; r < rows; ++r) settings[r].stream = r;
        colonnade::put(ctx, state.slots, numbers_of_rows);
        colonnade::put(ctx, state.drawn, std::vector<int32_t>(rows));
        colonnade::put(ctx, state.positions, std::vector<int32_t>(rows));
        colonnade::put(ctx, state.settings, settings.data());
        std::vector<int> counts(few.size());
        for (int step = 0; step < 40; ++step) {
            sample_tokens(ctx, {.logits = logits, .rows = state});
            for (const int32_t token : numbers(state.chosen)) ++counts[static_cast<size_t>(token)];
        }
        EXPECT_LT(deviation(counts, exact(few, sampling)), 5)
            << sampling.temperature << " " << sampling.top_k << " " << sampling.top_p << " " << sampling.min_p;
    }
}

TEST_P(SampleTokensOnDevice, MarksLogitsThatAreNotNumbers) {
    const Context ctx = context();
    Arena arena(GetParam(), size_t{1} << 20);
    const Tensor logits = arena.tensor("", DType::f32, {2, 7});
    const SamplingRows state = SamplingRows::lay_out(arena, 2, 7);
    std::vector<float> values(14);
    values[3] = 1, values[9] = std::nanf("");
    colonnade::put(ctx, logits, values);
    colonnade::put(ctx, state.slots, std::vector<int32_t>{0, 1});
    const std::vector<Sampling> settings(2);
    colonnade::put(ctx, state.settings, settings.data());
    sample_tokens(ctx, {.logits = logits, .rows = state});
    EXPECT_EQ(numbers(state.chosen), (std::vector<int32_t>{3, -1}));
    EXPECT_EQ(numbers(state.tokens), (std::vector<int32_t>{3, 0}));
}

INSTANTIATE_TEST_SUITE_P(Devices, SampleTokensOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
