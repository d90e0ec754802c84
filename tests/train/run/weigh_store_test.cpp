#include "train/run/weigh_store.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/expect_error.h"

namespace colonnade {
namespace {

/// `a` samples of a first data set, `b` of a second: sample i begins with the token i.
TokenStore store_of(int64_t a, int64_t b) {
    TokenStore store;
    store.statistics.files = {{.path = "a.jsonl"}, {.path = "b.jsonl", .dataset = 1}};
    for (int64_t i = 0; i < a + b; ++i) {
        Sample sample;
        sample.sequences = {{.tokens = {static_cast<int32_t>(i), 0}, .learned = {{1, 2, 1}}}};
        store.add(sample, i < a ? 0 : 1, i + 1);
    }
    store.count_samples();
    return store;
}

std::vector<int32_t> tokens_of(const TokenStore& store) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < store.size(); ++i) tokens.push_back(store.sample(i).whole(0).at(0));
    return tokens;
}

std::vector<int32_t> weighed(double a, double b, uint64_t seed = 1) {
    const std::vector<DatasetSpec> sets = {{.path = "a", .weight = a}, {.path = "b", .weight = b}};
    return tokens_of(weigh_store(store_of(3, 10), sets, seed));
}

TEST(WeighStore, RepeatsInWholePasses) {
    EXPECT_EQ(weighed(1, 1), tokens_of(store_of(3, 10)));
    EXPECT_EQ(weighed(2, 1), (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
}

TEST(WeighStore, TakesAFixedShareThatTheSeedDraws) {
    const std::vector<int32_t> half = weighed(1, 0.5);
    ASSERT_EQ(half.size(), 3u + 5u);
    EXPECT_TRUE(std::is_sorted(half.begin(), half.end()));
    EXPECT_EQ(half, weighed(1, 0.5));
    EXPECT_NE(half, weighed(1, 0.5, 2));
    // A larger share keeps the samples of a smaller one.
    const std::vector<int32_t> more = weighed(1, 0.8);
    EXPECT_EQ(more.size(), 3u + 8u);
    EXPECT_TRUE(std::includes(more.begin(), more.end(), half.begin(), half.end()));
    // 2.5: two passes, and the same half.
    std::vector<int32_t> expected = weighed(1, 2);
    expected.insert(expected.end(), half.begin() + 3, half.end());
    EXPECT_EQ(weighed(1, 2.5), expected);
}

TEST(WeighStore, CountsWhatItTakes) {
    const std::vector<DatasetSpec> sets = {{.path = "a", .weight = 3}, {.path = "b", .weight = 0.1}};
    const TokenStore store = weigh_store(store_of(3, 10), sets, 1);
    EXPECT_EQ(store.statistics.samples, 10);
    EXPECT_EQ(store.statistics.files[0].samples, 9);
    EXPECT_EQ(store.statistics.files[1].samples, 1);
    EXPECT_EQ(store.statistics.learned_tokens, 10);
}

TEST(WeighStore, RefusesToTakeNothing) {
    expect_error(Exit::config, "b: weight 0.01 takes none of its 10 samples", [] { weighed(1, 0.01); });
}

}  // namespace
}  // namespace colonnade
