// Mismatched answers: whose answer each prompt gets, what is cut, and that rows hold either sample.

#include "data/store/mismatched_answers.h"

#include <gtest/gtest.h>

#include <set>

#include "data/packing/batch.h"
#include "data/packing/packer.h"
#include "engine/device/philox.h"
#include "tests/support/expect_error.h"

namespace colonnade {
namespace {

/// Answers of random lengths to some prompts, which themselves begin alike. The last tokens of an answer may be left out
/// of what is learned.
TokenStore answers_to(int64_t prompts, int64_t samples) {
    TokenStore store;
    store.statistics.files = {{.path = "answers.jsonl", .type = "tokens", .rows = samples, .samples = samples}};
    const Philox random{5, 0};
    uint64_t at = 0;
    const auto draw = [&](int64_t n) { return static_cast<int32_t>(random.below(at++, static_cast<uint64_t>(n))); };
    for (int64_t i = 0; i < samples; ++i) {
        const auto prompt = static_cast<int32_t>(draw(prompts));
        Sequence sequence{.tokens = {1, 1, 1, 1, 1, 1}, .advantage = draw(2) ? 1.0f : -1.0f, .reward = 2.0f};
        for (int32_t k = 0; k < prompt % 3; ++k) sequence.tokens.push_back(2);
        sequence.tokens.push_back(100 + prompt);
        const auto begin = static_cast<int32_t>(sequence.tokens.size());
        const int32_t length = 2 + draw(20);
        for (int32_t k = 0; k < length; ++k) sequence.tokens.push_back(10 + draw(3));
        sequence.learned = {{begin, begin + 1, 0.5f}, {begin + 1, begin + length - draw(2), 1.0f}};
        if (sequence.learned[1].begin == sequence.learned[1].end) sequence.learned.pop_back();
        store.add({.sequences = {sequence}}, 0, i + 1);
    }
    return store;
}

int32_t prompt_length(const Sample& sample) {
    return sample.sequences[0].learned[0].begin;
}

std::vector<int32_t> prompt_of(const Sample& sample) {
    const std::vector<int32_t>& tokens = sample.sequences[0].tokens;
    return {tokens.begin(), tokens.begin() + prompt_length(sample)};
}

TEST(MismatchedAnswers, EachPromptGetsTheAnswerToAnotherOne) {
    for (const int64_t prompts : {2, 5, 1000}) {
        const TokenStore store = answers_to(prompts, 200);
        const MismatchedAnswers mismatched(store, {.seed = 3, .max_length = 40});
        std::map<int64_t, int> taken;
        const std::vector<int64_t> lengths = mismatched.lengths(store), rows = mismatched.row_lengths(store);
        for (int64_t i = 0; i < store.size(); ++i) {
            const Sample own = store.sample(i), other = store.sample(mismatched.partner(i));
            const Sample found = mismatched.sample(store, i);
            ++taken[mismatched.partner(i)];
            ASSERT_NE(prompt_of(own), prompt_of(other));
            EXPECT_NO_THROW(check_sample(found));
            std::vector<int32_t> expected = prompt_of(own);
            const std::vector<int32_t>& tokens = other.sequences[0].tokens;
            expected.insert(expected.end(), tokens.begin() + prompt_length(other), tokens.end());
            EXPECT_EQ(found.sequences[0].tokens, expected);
            EXPECT_EQ(target_weight(found), target_weight(other));
            EXPECT_EQ(prompt_length(found), prompt_length(own));
            EXPECT_EQ(found.sequences[0].advantage, 0);
            EXPECT_FALSE(found.sequences[0].reward);
            EXPECT_EQ(lengths[static_cast<size_t>(i)], found.length());
            EXPECT_EQ(rows[static_cast<size_t>(i)], std::max(own.length(), found.length()));
        }
        // A sample gives its answer to those that stand before it with one other prompt: to few if there are many.
        for (const auto& [sample, times] : taken) EXPECT_LE(times, prompts == 2 ? 20 : prompts == 5 ? 6 : 3) << sample;
        const MismatchedAnswers again(store, {.seed = 3, .max_length = 40}),
            moved(store, {.seed = 4, .max_length = 40});
        int64_t same = 0;
        for (int64_t i = 0; i < store.size(); ++i) {
            EXPECT_EQ(again.partner(i), mismatched.partner(i));
            same += moved.partner(i) == mismatched.partner(i);
        }
        EXPECT_LT(same, store.size() / 4);
    }
}

TEST(MismatchedAnswers, AreCutAtTheirEnd) {
    TokenStore store;
    store.statistics.files = {{.path = "answers.jsonl", .type = "tokens", .rows = 2, .samples = 2}};
    store.add({.sequences = {{.tokens = {1, 2, 3, 4, 5}, .learned = {{4, 5, 1}}, .advantage = 1}}}, 0, 1);
    store.add({.sequences = {{.tokens = {9, 6, 7, 8}, .learned = {{1, 2, 0.5f}, {3, 4, 1}}, .advantage = -1}}}, 0, 2);
    const auto first = [&](int64_t max_length) {
        return MismatchedAnswers(store, {.max_length = max_length}).sample(store, 0).sequences[0];
    };
    EXPECT_EQ(first(7).tokens, (std::vector{1, 2, 3, 4, 6, 7, 8}));
    EXPECT_EQ(first(7).learned, (std::vector<LearnedSpan>{{4, 5, 0.5f}, {6, 7, 1}}));
    EXPECT_EQ(first(6).tokens, (std::vector{1, 2, 3, 4, 6, 7}));
    EXPECT_EQ(first(5).learned, (std::vector<LearnedSpan>{{4, 5, 0.5f}}));
    expect_error(Exit::internal, "a sample of 5 tokens, max_length 4", [&] { first(4); });
}

TEST(MismatchedAnswers, OnePromptHasNone) {
    const TokenStore store = answers_to(1, 20);
    const MismatchedAnswers none(store, {.max_length = 40});
    EXPECT_TRUE(none.empty());
    EXPECT_EQ(none.row_lengths(store), store.lengths());
    EXPECT_EQ(MismatchedAnswers().row_lengths(store), store.lengths());
}

/// Rows of the samples, and rows of their mismatched ones, are no longer than the packer has planned, also if they share.
TEST(MismatchedAnswers, FitTheRowsOfTheirSamples) {
    const TokenStore store = answers_to(12, 300);
    const MismatchedAnswers mismatched(store, {.max_length = 30});
    PrefixOrder order = store.prefix_order();
    const std::vector<int32_t> whole = order.lcp;
    mismatched.limit(order);
    EXPECT_NE(order.lcp, whole);
    for (const PrefixOrder& prefixes : {PrefixOrder(), order}) {
        const PackPlan plan =
            Packer(mismatched.row_lengths(store), {.packing_length = 64, .min_shared = 4}, prefixes).plan(0);
        const Sharing sharing = prefixes.order.empty() ? Sharing::sample : Sharing::row;
        int64_t seen = 0, longest = 0;
        for (int64_t p = 0; p < plan.packs(); ++p) {
            std::vector<Sample> own, other;
            for (const int64_t i : plan.pack(p)) {
                own.push_back(store.sample(i));
                other.push_back(mismatched.sample(store, i));
            }
            for (const std::vector<Sample>& samples : {own, other}) {
                std::vector<const Sample*> pack;
                for (const Sample& sample : samples) pack.push_back(&sample);
                const int64_t tokens = make_batch({pack}, {.sharing = sharing}).real_tokens;
                EXPECT_LE(tokens, plan.tokens[static_cast<size_t>(p)]);
                longest = std::max(longest, tokens);
            }
            seen += std::ssize(own);
        }
        EXPECT_EQ(seen, store.size());
        EXPECT_GT(longest, 48);
        EXPECT_LE(longest, 64);
    }
}

}  // namespace
}  // namespace colonnade
