// Batches against their definition, token by token: which row sees which column, and which row predicts which token.

#include "data/packing/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "engine/device/philox.h"

namespace colonnade {
namespace {

using Packs = std::vector<std::vector<Sample>>;

std::vector<std::vector<const Sample*>> views(const Packs& packs) {
    std::vector<std::vector<const Sample*>> result(packs.size());
    for (size_t p = 0; p < packs.size(); ++p) {
        for (const Sample& sample : packs[p]) result[p].push_back(&sample);
    }
    return result;
}

/// A token of a row, by the definition in data/samples/sample.h. Padding has sample -1.
struct Place {
    int sample = -1, branch = -1;  // within the pack, within the sample; branch -1: stem
    int first_branch = 0;          // branches of the batch before this sample
    int32_t token = 0;
    float weight = 0;
};

std::vector<std::vector<Place>> places_of(const Packs& packs, int64_t length) {
    std::vector<std::vector<Place>> rows;
    int branches = 0;
    for (const auto& pack : packs) {
        std::vector<Place> row;
        for (size_t s = 0; s < pack.size(); ++s) {
            for (int64_t i = 0; i < pack[s].length(); ++i) {
                int branch = -1;
                for (const int32_t begin : pack[s].branch_begins) branch += i >= begin;
                const auto at = static_cast<size_t>(i);
                row.push_back({static_cast<int>(s), branch, branches, pack[s].tokens[at], pack[s].weights[at]});
            }
            branches += static_cast<int>(pack[s].branch_begins.size());
        }
        row.resize(static_cast<size_t>(length));
        rows.push_back(row);
    }
    return rows;
}

bool sees(const std::vector<Place>& row, size_t i, size_t j) {
    return row[i].sample >= 0 && row[i].sample == row[j].sample && j <= i &&
           (row[j].branch == -1 || row[j].branch == row[i].branch);
}

/// The branch table by its definition: a branch's last row is that of its last token, or the last row of the stem if
/// the branch is empty.
void expect_branches_as_defined(const Packs& packs, const Batch& batch, const std::vector<std::vector<Place>>& rows) {
    std::vector<Branch> expected;
    std::vector<float> margins;
    double pairs = 0;
    for (size_t p = 0; p < packs.size(); ++p) {
        for (size_t s = 0; s < packs[p].size(); ++s) {
            const auto sample = static_cast<int32_t>(margins.size());
            const auto branches = static_cast<int32_t>(packs[p][s].branch_begins.size());
            for (int32_t rank = 0; rank < branches; ++rank) {
                int32_t last = -1, last_of_stem = -1, targets = 0;
                bool has_stem = false;
                for (size_t i = 0; i < rows[p].size(); ++i) {
                    const Place& place = rows[p][i];
                    if (place.sample != static_cast<int>(s)) continue;
                    const auto flat = static_cast<int32_t>(p * rows[p].size() + i);
                    has_stem |= place.branch == -1;
                    if (place.branch == -1) last_of_stem = flat;
                    if (place.branch != rank) continue;
                    targets += place.weight > 0 && (has_stem || last >= 0);
                    last = flat;
                }
                expected.push_back({sample, rank, last >= 0 ? last : last_of_stem, targets});
            }
            margins.push_back(packs[p][s].margin);
            pairs += branches > 1 ? 1 : 0;
        }
    }
    EXPECT_EQ(batch.branch_table, expected);
    EXPECT_EQ(batch.margins, margins);
    EXPECT_EQ(batch.pairs, pairs);
}

void expect_as_defined(const Packs& packs, const Batch& batch) {
    const auto rows = places_of(packs, batch.length);
    const auto length = static_cast<size_t>(batch.length);
    batch.mask.validate();
    const std::vector<uint8_t> dense = batch.mask.dense();
    ASSERT_EQ(dense.size(), packs.size() * length * length);
    std::vector<std::tuple<int32_t, int32_t, int32_t, float>> expected, found;  // row, branch, target, weight
    double weight = 0;
    for (size_t p = 0; p < rows.size(); ++p) {
        for (size_t i = 0; i < length; ++i) {
            const Place& place = rows[p][i];
            const size_t flat = p * length + i;
            ASSERT_EQ(batch.tokens[flat], place.token);
            int32_t seen = 0, before = -1;  // keys seen; the last one apart from itself
            for (size_t j = 0; j < length; ++j) {
                const bool visible = sees(rows[p], i, j);
                ASSERT_EQ(dense[flat * length + j], visible) << "pack " << p << " row " << i << " column " << j;
                seen += visible;
                if (visible && j != i) before = static_cast<int32_t>(p * length + j);
            }
            // A token's position is the number of tokens before it that it can see.
            ASSERT_EQ(batch.positions[flat], std::max(0, seen - 1));
            if (place.branch >= 0 && place.weight > 0 && before >= 0) {
                expected.emplace_back(before, place.first_branch + place.branch, place.token, place.weight);
                weight += static_cast<double>(place.weight);
            }
        }
    }
    expect_branches_as_defined(packs, batch, rows);
    for (size_t i = 0; i < batch.rows.size(); ++i)
        found.emplace_back(batch.rows[i], batch.branches[i], batch.targets[i], batch.weights[i]);
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(found, expected);
    EXPECT_DOUBLE_EQ(batch.target_weight, weight);
}

/// A random sample: stems and branches of any length, also 0; weights of 0, 0.5 and 1.
Sample random_sample(const Philox& random, uint64_t& at) {
    Sample sample;
    const auto draw = [&](uint64_t n) { return random.below(at++, n); };
    const auto append = [&](uint64_t count) {
        for (uint64_t i = 0; i < count; ++i) {
            sample.tokens.push_back(static_cast<int32_t>(1 + draw(1000)));
            sample.weights.push_back(static_cast<float>(draw(3)) / 2);
        }
    };
    append(draw(5));
    for (uint64_t branches = 1 + draw(4); branches > 0; --branches) {
        sample.branch_begins.push_back(static_cast<int32_t>(sample.tokens.size()));
        append(draw(5));
    }
    sample.margin = static_cast<float>(draw(3));
    return sample;
}

TEST(Batch, TheExampleOfTheHeader) {
    const Packs packs = {{{{10, 11, 12}, {1, 1, 1}, {0}}, {{20, 21, 30, 31, 40}, {0, 0, 1, 1, 1}, {2, 4}, 0.5f}}};
    const Batch batch = make_batch(views(packs), 3);
    EXPECT_EQ(batch.length, 9);
    EXPECT_EQ(batch.tokens, (std::vector<int32_t>{10, 11, 12, 20, 21, 30, 31, 40, 0}));
    EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3, 2, 0}));
    EXPECT_EQ(batch.mask.lts, (std::vector<int32_t>{3, 3, 3, 8, 8, 7, 7, 8, 0}));
    EXPECT_EQ(batch.rows, (std::vector<int32_t>{0, 1, 4, 4, 5}));
    EXPECT_EQ(batch.targets, (std::vector<int32_t>{11, 12, 30, 40, 31}));
    EXPECT_EQ(batch.branches, (std::vector<int32_t>{0, 0, 1, 2, 1}));
    EXPECT_EQ(batch.branch_table, (std::vector<Branch>{{0, 0, 2, 2}, {1, 0, 6, 2}, {1, 1, 7, 1}}));
    EXPECT_EQ(batch.margins, (std::vector<float>{0, 0.5}));
    EXPECT_EQ(batch.pairs, 1);
    EXPECT_EQ(batch.samples, 2);
    EXPECT_EQ(batch.real_tokens, 8);
    EXPECT_EQ(batch.target_weight, 5);
}

TEST(Batch, EqualsItsDefinition) {
    const Philox random{7, 1};
    uint64_t at = 0;
    for (int trial = 0; trial < 200; ++trial) {
        Packs packs(1 + random.below(at++, 4));
        for (auto& pack : packs) {
            for (uint64_t n = random.below(at++, 4); n > 0; --n) pack.push_back(random_sample(random, at));
        }
        const auto align = static_cast<int64_t>(1 + random.below(at++, 8));
        const Batch batch = make_batch(views(packs), align);
        int64_t fullest = 1, tokens = 0, samples = 0;
        for (const auto& pack : packs) {
            int64_t sum = 0;
            for (const Sample& sample : pack) sum += sample.length();
            fullest = std::max(fullest, sum);
            tokens += sum;
            samples += static_cast<int64_t>(pack.size());
        }
        EXPECT_EQ(batch.length % align, 0);
        EXPECT_GE(batch.length, fullest);
        EXPECT_LT(batch.length, fullest + align);
        EXPECT_EQ(batch.real_tokens, tokens);
        EXPECT_EQ(batch.samples, samples);
        ASSERT_NO_FATAL_FAILURE(expect_as_defined(packs, batch));
    }
}

/// Windows count positions: a branch sees its stem as if it followed directly, however many branches are between them.
TEST(Batch, SlidingWindowsCountPositionsOrAreRefused) {
    const Philox random{9, 1};
    uint64_t at = 0;
    int exact = 0, pairs = 0, refused = 0;
    for (int trial = 0; trial < 400; ++trial) {
        Packs packs(1 + random.below(at++, 2));
        for (auto& pack : packs) {
            for (uint64_t n = 1 + random.below(at++, 3); n > 0; --n) pack.push_back(random_sample(random, at));
        }
        const auto window = static_cast<int64_t>(1 + random.below(at++, 8));
        bool can = true;
        for (const auto& pack : packs)
            for (const Sample& sample : pack) {
                can = can && window_fits_column_mask(sample.branch_begins, window);
                EXPECT_TRUE(sample.branch_begins.size() > 2 || window_fits_column_mask(sample.branch_begins, window));
                pairs += sample.branch_begins.size() == 2;
            }
        const Batch batch = make_batch(views(packs), 1 + static_cast<int64_t>(random.below(at++, 4)));
        try {
            const ColumnMask mask = batch.mask.with_sliding_window(window, batch.positions);
            mask.validate();
            const std::vector<uint8_t> dense = mask.dense(), whole = batch.mask.dense();
            for (size_t i = 0; i < dense.size(); ++i) {
                const size_t row = i / static_cast<size_t>(batch.length);
                const size_t column = row / static_cast<size_t>(batch.length) * static_cast<size_t>(batch.length) +
                                      i % static_cast<size_t>(batch.length);
                ASSERT_EQ(dense[i], whole[i] && batch.positions[row] - batch.positions[column] < window)
                    << "row " << row << " column " << column << " window " << window;
            }
            ++exact;
        } catch (const Error& e) {
            ASSERT_EQ(e.exit(), Exit::config);
            // At the end of a row, two ranges may suffice for a sample that needs more elsewhere; it is refused here
            // too.
            ASSERT_FALSE(can) << e.what();
            ++refused;
        }
    }
    EXPECT_GT(exact, 100);
    EXPECT_GT(pairs, 100);
    EXPECT_GT(refused, 20);
}

/// If window_fits_column_mask refuses a sample, the mask refuses it too when something follows the sample.
TEST(Batch, LengthsDecideWhetherAWindowFits) {
    const Sample behind{{1, 2, 3}, {0, 1, 1}, {0}};
    const Philox random{10, 1};
    uint64_t at = 0;
    int refused = 0;
    for (int trial = 0; trial < 500; ++trial) {
        const Sample sample = random_sample(random, at);
        for (int64_t window = 1; window < 10; ++window) {
            const Batch batch = make_batch({{&sample, &behind}});
            bool accepted = true;
            try {
                (void)batch.mask.with_sliding_window(window, batch.positions);
            } catch (const Error&) {
                accepted = false;
            }
            // If the last branch is within the window, its range is free for an earlier branch.
            const bool can = window_fits_column_mask(sample.branch_begins, window);
            EXPECT_TRUE(accepted || !can);
            refused += !accepted;
            EXPECT_FALSE(accepted && !can && sample.branch_begins.back() < sample.length()) << window;
        }
    }
    EXPECT_GT(refused, 50);
}

TEST(Batch, OneTokenSamplesAndEmptyPacks) {
    const Packs packs = {{}, {{{5}, {1}, {0}}, {{6}, {1}, {0}}}, {}};
    const Batch batch = make_batch(views(packs));
    EXPECT_EQ(batch.length, 2);
    EXPECT_TRUE(batch.rows.empty());  // no row comes before a first token
    expect_as_defined(packs, batch);

    const Batch empty = make_batch({{}, {}}, 4);
    EXPECT_EQ(empty.length, 4);
    EXPECT_EQ(empty.real_tokens, 0);
    expect_as_defined({{}, {}}, empty);
}

TEST(Batch, TargetWeightIsThatOfTheBatch) {
    const Philox random{8, 1};
    uint64_t at = 0;
    for (int trial = 0; trial < 100; ++trial) {
        const Sample sample = random_sample(random, at);
        EXPECT_EQ(target_weight(sample.weights, sample.branch_begins), make_batch({{&sample}}).target_weight);
    }
}

TEST(Batch, BrokenSamplesAreRefused) {
    const Sample broken[] = {{{1, 2}, {1, 1}, {}},
                             {{1, 2}, {1, 1}, {-1}},
                             {{1, 2}, {1, 1}, {0, 3}},
                             {{1, 2}, {1, 1}, {1, 0}},
                             {{1, 2}, {1}, {0}}};
    for (const Sample& sample : broken) {
        try {
            make_batch({{&sample}});
            FAIL() << "accepted";
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), Exit::internal);
        }
    }
}

}  // namespace
}  // namespace colonnade
