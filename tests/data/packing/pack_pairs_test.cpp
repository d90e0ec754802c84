// The pairs by which packs are dealt to ranks, against the dense masks of their batches.

#include <gtest/gtest.h>

#include <numeric>

#include "data/packing/batch.h"
#include "data/packing/step_layout.h"
#include "data/store/store.h"
#include "tests/support/draw.h"
#include "tests/support/random_trees.h"
#include "tests/support/token_forest.h"

namespace colonnade {
namespace {

constexpr int64_t packing_length = 96;

/// Answers with nothing in common behind a prompt, all in one sample: an SFT row, a pair or a ranking.
Sample answers(const Tokens& prompt, int count, int32_t& next_token, Draw& draw) {
    Sample sample;
    for (int i = 0; i < count; ++i) {
        Sequence& s = sample.sequences.emplace_back();
        if (i == 0)
            s.tokens = prompt;
        else
            s.shared = static_cast<int32_t>(prompt.size());
        for (int n = 1 + draw.below(8); n > 0; --n) s.tokens.push_back(next_token++);
    }
    return sample;
}

/// Packs the samples, with shared beginnings if `sharing` says so, and compares every pack with its dense mask. Returns
/// the pairs of all packs.
int64_t expect_pairs_of_masks(const std::vector<Sample>& samples, Sharing sharing) {
    TokenStore store;
    for (const Sample& sample : samples) store.add(sample, 0, store.size() + 1);
    const std::vector<int64_t> visible = store.visible_pairs();
    for (size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(visible[i], visible_pairs(samples[i]));
    const PackPlan plan = Packer(store.lengths(), {.packing_length = packing_length, .min_shared = 1},
                                 sharing == Sharing::row ? store.prefix_order() : PrefixOrder())
                              .plan(0);
    EXPECT_LT(plan.packs(), store.size());
    int64_t all = 0;
    for (int64_t p = 0; p < plan.packs(); ++p) {
        std::vector<const Sample*> pack;
        for (const int64_t i : plan.pack(p)) pack.push_back(&samples[static_cast<size_t>(i)]);
        const Batch batch = make_batch({pack}, {.sharing = sharing});
        const std::vector<uint8_t> dense = batch.mask.dense();
        const int64_t pairs = pack_pairs(plan, p, visible);
        EXPECT_EQ(pairs, std::accumulate(dense.begin(), dense.end(), int64_t{0}));
        EXPECT_EQ(pack_cost(plan, p, visible), batch.real_tokens + pairs / pairs_like_a_token);
        all += pairs;
    }
    return all;
}

/// Pairs if every sample were one sequence.
int64_t pairs_of_lengths(const std::vector<Sample>& samples) {
    int64_t pairs = 0;
    for (const Sample& sample : samples) pairs += visible_pairs(sample.length());
    return pairs;
}

TEST(PackPairs, AreThoseOfTheDenseMaskForTextsPairsAndRankings) {
    for (const int most : {1, 2, 6}) {
        Draw draw(static_cast<uint64_t>(most));
        std::vector<Sample> samples;
        int32_t token = 1;
        for (int i = 0; i < 200; ++i) {
            Tokens prompt(static_cast<size_t>(draw.below(30)));
            std::iota(prompt.begin(), prompt.end(), token);
            samples.push_back(answers(prompt, most > 1 ? 2 + draw.below(most - 1) : 1, token, draw));
        }
        const int64_t pairs = expect_pairs_of_masks(samples, Sharing::sample);
        if (most == 1)
            EXPECT_EQ(pairs, pairs_of_lengths(samples));
        else
            EXPECT_LT(pairs, pairs_of_lengths(samples));
    }
}

TEST(PackPairs, AreThoseOfTheDenseMaskForTrees) {
    const Philox random{5, 0};
    uint64_t draws = 0;
    std::vector<Sample> samples;
    while (samples.size() < 500) {
        Sample sample = random_tree(random, draws, {.sequences = 6, .tokens = 9});
        if (sample.length() > 0) samples.push_back(std::move(sample));
    }
    EXPECT_LT(expect_pairs_of_masks(samples, Sharing::sample), pairs_of_lengths(samples));
}

TEST(PackPairs, AreThoseOfTheDenseMaskForSamplesThatBeginAlike) {
    int64_t pairs = 0, alone = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
        std::vector<Sample> samples;
        for (const Tokens& tokens : random_forest(seed, 150))
            if (!tokens.empty() && std::ssize(tokens) <= packing_length)
                samples.push_back({.sequences = {{.tokens = tokens}}});
        if (samples.empty()) continue;
        pairs += expect_pairs_of_masks(samples, Sharing::row);
        alone += pairs_of_lengths(samples);
    }
    EXPECT_LT(pairs, alone);
}

TEST(PackPairs, AreThoseOfTheDenseMaskForRankingsBehindTheSamePrompts) {
    Draw draw(7);
    std::vector<Sample> samples;
    int32_t token = 1;
    for (int group = 0; group < 40; ++group) {
        Tokens prompt(static_cast<size_t>(1 + draw.below(40)));
        std::iota(prompt.begin(), prompt.end(), token);
        token += static_cast<int32_t>(prompt.size());
        for (int i = draw.below(6); i >= 0; --i) samples.push_back(answers(prompt, 1 + draw.below(4), token, draw));
    }
    int64_t alone = 0;
    for (const Sample& sample : samples) alone += visible_pairs(sample);
    EXPECT_LT(expect_pairs_of_masks(samples, Sharing::row), alone);
}

}  // namespace
}  // namespace colonnade
