// Scored answers in a store: advantages over the whole data set, whatever the order of files and the number of threads;
// cuts keep numbers and tokens together; every answer is kept or counted.

#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "data/prepare_report.h"
#include "data/store/build_store.h"
#include "tests/support/file_test.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

class ScoredStore : public FileTest {
  protected:
    StoreRequest request(const std::vector<std::string>& files, RowKind kind = RowKind::scored) const {
        StoreRequest request;
        request.folder = path("prepared");
        for (size_t i = 0; i < files.size(); ++i) {
            const std::string file = path(fmt::format("{}.jsonl", i));
            spill(file, files[i]);
            request.datasets.push_back({.path = file});
        }
        request.rows = kind;
        request.encode = {.max_length = 6, .excess_length = ExcessLength::truncate, .vocab_size = 1000};
        request.progress.write = [](std::string_view) {};
        return request;
    }
    std::string place(int line) const { return fmt::format("{}:{}", path("0.jsonl"), line); }
};

/// {"prompt_ids": [PROMPT], "completion_ids": [ANSWER], ...}
std::string tokens_row(int prompt, const std::string& answer, const std::string& more) {
    return fmt::format(R"({{"prompt_ids": [{}], "completion_ids": [{}], {}}})"
                       "\n",
                       prompt, answer, more);
}

std::vector<float> advantages_of(const TokenStore& store) {
    std::vector<float> values;
    for (int64_t i = 0; i < store.size(); ++i) values.push_back(store.sample(i).sequences.at(0).advantage);
    return values;
}

TEST_F(ScoredStore, AnswersBecomeSamplesWithTheirAdvantage) {
    const std::string rows = tokens_row(1, "3, 4", R"("reward": 1, "old_per_token_logps": [-1, -2])") +
                             tokens_row(1, "5", R"("reward": 0)") +    // the same group
                             tokens_row(2, "6, 7", R"("reward": 4)");  // alone
    const StoreResult result = build_store(request({rows}));
    ASSERT_EQ(result.store.size(), 3);
    const Sequence first = result.store.sample(0).sequences.at(0);
    EXPECT_EQ(first.tokens, (std::vector<int32_t>{1, 3, 4}));
    EXPECT_EQ(first.learned, (std::vector<LearnedSpan>{{1, 3, 1}}));
    EXPECT_EQ(first.logps.old, (std::vector<float>{-1, -2}));
    EXPECT_EQ(first.reward, 1.0f);
    const auto expected = static_cast<float>(0.5 / (std::sqrt(0.5) + 1e-4));
    EXPECT_EQ(advantages_of(result.store), (std::vector<float>{expected, -expected, 0}));
    const std::string report = prepare_report(result, {.packing_length = 8}, nullptr);
    for (const char* part : {"answers                   3 in 2 groups",
                             "groups without advantage  1 with one reward, 0 with equal rewards",
                             "rewards                   mean 1.667, std 2.082"})
        EXPECT_NE(report.find(part), std::string::npos) << report << "\nlacks " << part;
    const StoreResult again = build_store(request({rows}));
    EXPECT_TRUE(again.reused);
    EXPECT_NE(prepare_report(again, {.packing_length = 8}, nullptr).find("mean 1.667, std 2.082"), std::string::npos);
}

TEST_F(ScoredStore, AdvantagesAreThoseOfTheWholeDataSet) {
    // 3,000 answers of 211 groups in no order, two functions, some without a reward.
    std::mt19937 random(7);
    std::vector<std::string> rows;
    std::vector<double> rewards;
    std::vector<int64_t> groups;  // by the number of their first answer
    std::map<int, int64_t> first_of;
    for (int i = 0; i < 3000; ++i) {
        const int group = static_cast<int>(random() % 211);
        const double a = static_cast<double>(random() % 7) / 4, b = static_cast<double>(random() % 3);
        const bool scored = random() % 10 > 0;
        rows.push_back(tokens_row(
            1, fmt::format("{}, {}", 2 + i % 900, group),
            fmt::format(R"("group": "g{}", "rewards": {})", group, scored ? fmt::format("[{}, {}]", a, b) : "null")));
        groups.push_back(first_of.emplace(group, i).first->second);
        rewards.insert(rewards.end(), {scored ? a : null_reward, scored ? b : null_reward});
    }
    const std::vector<double> weights = {1, -0.5};
    const auto joined = [&](size_t begin, size_t end) {
        return std::accumulate(rows.begin() + static_cast<std::ptrdiff_t>(begin),
                               rows.begin() + static_cast<std::ptrdiff_t>(end), std::string());
    };
    const AdvantageSettings settings[] = {
        {},
        {.scale = AdvantageScale::batch},
        {.scale = AdvantageScale::leave_one_out, .clip_max = 1, .whole_set = WholeSet::normalized},
        {.aggregation = RewardAggregation::normalize_then_sum}};
    for (const AdvantageSettings& each : settings) {
        const Advantages oracle = advantages({.rewards = rewards, .groups = groups, .weights = weights}, each);
        std::vector<float> expected;
        for (const double value : oracle.values) expected.push_back(static_cast<float>(value));
        for (const int threads : {1, 4}) {
            std::filesystem::remove_all(path("prepared"));
            StoreRequest whole = request({joined(0, rows.size())});
            whole.rewards = {each, weights};
            whole.threads = threads;
            const TokenStore store = build_store(whole).store;
            EXPECT_EQ(advantages_of(store), expected) << threads;
            ASSERT_EQ(store.statistics.rewards.size(), 1u);
            const RewardCounts& counts = store.statistics.rewards[0];
            EXPECT_EQ(counts.groups, oracle.groups);
            EXPECT_EQ(counts.unscored, oracle.unscored);
            EXPECT_EQ(counts.reward_std, oracle.reward_std);
        }
    }
    // The same answers from a folder of two files, the second part first: the same numbers but for the order of sums.
    StoreRequest folder = request({""});
    std::filesystem::create_directories(path("parts"));
    spill(path("parts/a.jsonl"), joined(1700, rows.size()));
    spill(path("parts/b.jsonl"), joined(0, 1700));
    folder.datasets = {{.path = path("parts")}};
    folder.rewards.weights = weights;
    std::vector<float> turned = advantages_of(build_store(folder).store);
    std::rotate(turned.begin(), turned.begin() + 1300, turned.end());
    const Advantages oracle = advantages({.rewards = rewards, .groups = groups, .weights = weights}, {});
    for (size_t i = 0; i < turned.size(); ++i) ASSERT_NEAR(turned[i], oracle.values[i], 1e-6) << i;
}

TEST_F(ScoredStore, GroupsAreThoseOfOneDataSet) {
    const std::string one = tokens_row(1, "3", R"("reward": 0, "group": 1)") +
                            tokens_row(1, "4", R"("reward": 1, "group": 1)"),
                      two = tokens_row(1, "5", R"("reward": 100, "group": 1)");
    const StoreResult result = build_store(request({one, two}));
    const auto expected = static_cast<float>(0.5 / (std::sqrt(0.5) + 1e-4));
    EXPECT_EQ(advantages_of(result.store), (std::vector<float>{-expected, expected, 0}));
    ASSERT_EQ(result.store.statistics.rewards.size(), 2u);
    EXPECT_EQ(result.store.statistics.rewards[0].reward, 0.5);
    EXPECT_EQ(result.store.statistics.rewards[1].groups_of_one, 1);
    EXPECT_NE(prepare_report(result, {.packing_length = 8}, nullptr).find("answers of data set 2     1 in 1 groups"),
              std::string::npos);
}

TEST_F(ScoredStore, CutsKeepNumbersAndTokensTogether) {
    const std::string rows =
        tokens_row(1, "2, 3, 4, 5, 6, 7",
                   R"("completion_mask": [1, 0, 1, 1, 0, 1], "old_per_token_logps": [-1, -2, -3, -4, -5, -6], )"
                   R"("sampling_per_token_logps": [-1, -3, -4, -6], "reward": 1)") +  // 1: the last is cut off
        R"({"prompt_ids": [1, 2, 3, 4, 5, 6], "completion_ids": [7], "reward": 100, "group": 1})"
        "\n" +                                                                                     // 2: nothing is left
        tokens_row(1, "8", R"("reward": 0, "truncated": true)") +                                  // 3
        tokens_row(1, "9", R"("reward": 0, "completion_mask": [0], "old_per_token_logps": [0])");  // 4
    StoreRequest made = request({rows});
    const TokenStore kept = build_store(made).store;
    ASSERT_EQ(kept.size(), 3);
    const Sequence cut = kept.sample(0).sequences.at(0);
    EXPECT_EQ(cut.tokens, (std::vector<int32_t>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(cut.learned, (std::vector<LearnedSpan>{{1, 2, 1}, {3, 5, 1}}));
    EXPECT_EQ(cut.logps.old, (std::vector<float>{-1, -3, -4}));
    EXPECT_EQ(cut.logps.sampled, (std::vector<float>{-1, -3, -4}));
    EXPECT_NEAR(kept.sample(0).sequences[0].advantage, 1.1545, 1e-3) << "of 1, 0, 0: the dropped answer is in no group";
    EXPECT_EQ(kept.sample(1).sequences[0].learned.size(), 1u);
    EXPECT_TRUE(kept.sample(2).sequences[0].learned.empty());
    const StoreStatistics& s = kept.statistics;
    EXPECT_EQ(s.notes[RowNote::dropped_too_long].first, (std::vector<std::string>{place(2)}));
    EXPECT_EQ(s.notes[RowNote::truncated].first, (std::vector<std::string>{place(1)}));
    EXPECT_EQ(s.notes[RowNote::cut_off].first, (std::vector<std::string>{place(1), place(3)}));
    EXPECT_EQ(s.notes[RowNote::answer_not_learned].first, (std::vector<std::string>{place(4)}));
    // mask_truncated_completions: they count, and teach nothing.
    made.encode.mask_truncated = true;
    expect_error(Exit::data, "nothing is learned of the 3 answers for train", [&] { build_store(made); });
    spill(path("0.jsonl"), rows + tokens_row(1, "9", R"("reward": 1)"));
    const TokenStore masked = build_store(made).store;
    ASSERT_EQ(masked.size(), 4);
    EXPECT_TRUE(masked.sample(0).sequences[0].learned.empty() && masked.sample(0).sequences[0].logps.old.empty());
    EXPECT_NE(masked.sample(0).sequences[0].advantage, 0);
    EXPECT_EQ(masked.statistics.notes[RowNote::answer_not_learned].count, 3);
    // Without truncation long answers are left out, or an error.
    made.encode = {.max_length = 6, .vocab_size = 1000};
    EXPECT_EQ(build_store(made).store.size(), 3);
    made.encode.excess_length = ExcessLength::error;
    expect_error(Exit::data, place(1) + ": a prompt and its answer have 7 tokens; expected at most max_length 6",
                 [&] { build_store(made); });
}

TEST_F(ScoredStore, GivenAdvantagesAreUsedAsTheyAre) {
    const std::string rows =
        R"({"prompt": "p", "completions": ["a", "b"], "advantages": [0.5, null], "rewards": [7, 9]})"
        "\n";
    StoreRequest given = request({rows});
    given.encode.max_length = 64;
    given.tokenizer = small_tokenizer({});
    given.encode.vocab_size = 0;
    const StoreResult result = build_store(given);
    EXPECT_EQ(advantages_of(result.store), (std::vector<float>{0.5, 0}));
    EXPECT_EQ(result.store.sample(1).sequences[0].reward, 9.0f);
    const RewardCounts& counts = result.store.statistics.rewards.at(0);
    EXPECT_EQ(counts.given, 1);
    EXPECT_EQ(counts.unscored, 1);
    EXPECT_EQ(result.store.statistics.rows, 1);
    EXPECT_EQ(result.store.statistics.samples, 2);
    const std::string report = prepare_report(result, {.packing_length = 64}, nullptr);
    EXPECT_NE(report.find("advantages                1 as the rows give them"), std::string::npos) << report;
}

TEST_F(ScoredStore, RowsOfADataSetHaveToAgree) {
    const std::string number = tokens_row(1, "3", R"("reward": 1)");
    const auto refused = [&](const std::string& second, const std::string& part) {
        expect_error(Exit::data, place(2) + ": " + part, [&] { build_store(request({number + second})); });
    };
    refused(tokens_row(1, "3", R"("advantage": 1)"),
            fmt::format("found an advantage, but {} has none; expected one for every answer", place(1)));
    refused(tokens_row(1, "3", R"("rewards": [1, 2])"),
            fmt::format("rewards of 2 without names functions, but {} has those of 1 without names", place(1)));
    refused(tokens_row(1, "3", R"("rewards": {"right": 1})"), "rewards of 1 (right) functions");
    StoreRequest weights = request({number});
    weights.rewards.weights = {1, 2};
    expect_error(Exit::config, "reward_weights has 2 numbers, but " + place(1) + " has rewards of 1 without names",
                 [&] { build_store(weights); });
}

TEST_F(ScoredStore, LabelsAreAdvantages) {
    const std::string rows = tokens_row(1, "2", R"("label": true, "completion_mask": [0])") +
                             tokens_row(1, "3", R"("label": true)") + tokens_row(1, "4, 5", R"("label": false)");
    const StoreResult result = build_store(request({rows}, RowKind::labelled));
    EXPECT_EQ(advantages_of(result.store), (std::vector<float>{1, -1}));
    EXPECT_TRUE(result.store.statistics.rewards.empty());
    EXPECT_EQ(result.store.statistics.notes[RowNote::dropped_nothing_learned].first,
              std::vector<std::string>{place(1)});
    EXPECT_NE(
        prepare_report(result, {.packing_length = 8}, nullptr).find("labels                    1 good answers, 1 bad"),
        std::string::npos);
}

}  // namespace
}  // namespace colonnade
