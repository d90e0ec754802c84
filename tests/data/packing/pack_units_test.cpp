// Units and stems against their definition on whole sequences.

#include "data/packing/pack_units.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "tests/support/prefix_samples.h"

namespace colonnade {
namespace {

/// Units as sets of samples, and the depths of the stems above each from the root down.
using Units = std::map<std::vector<int32_t>, std::vector<int32_t>>;

/// The definition, by walking down the trie token by token.
class NaiveUnits {
  public:
    NaiveUnits(const PrefixSamples& samples, const UnitLimits& limits) : samples_(samples), limits_(limits) {
        std::vector<int32_t> all(samples.leading.size());
        std::iota(all.begin(), all.end(), 0);
        add(all, 0, {0}, std::ssize(all));
    }
    Units units;

  private:
    const Tokens& leading(int32_t s) const { return samples_.leading[static_cast<size_t>(s)]; }

    /// `of_stem`: samples that begin with the last of the stems.
    void add(const std::vector<int32_t>& group, size_t depth, std::vector<int32_t> stems, int64_t of_stem) {
        if (group.size() == 1) {
            units[group] = stems;
            return;
        }
        const auto differ = [&](int32_t s) {
            return leading(s).size() == depth || leading(s)[depth] != leading(group[0])[depth];
        };
        while (leading(group[0]).size() > depth && std::none_of(group.begin(), group.end(), differ)) ++depth;
        const auto count = static_cast<int64_t>(group.size()), shared = static_cast<int64_t>(depth) - stems.back();
        const int64_t beyond = samples_.represented(group) - count * stems.back();
        if (shared > 0 &&
            (shared >= limits_.min_shared || 2 * count * shared >= beyond || 16 * count >= 15 * of_stem)) {
            if (samples_.distinct(group) <= limits_.tokens &&
                samples_.represented(group) < limits_.most_represented * limits_.tokens) {
                units[group] = stems;
                return;
            }
            stems.push_back(static_cast<int32_t>(depth));
            of_stem = count;
        }
        std::map<int32_t, std::vector<int32_t>> children;
        for (const int32_t s : group) {
            if (leading(s).size() == depth)
                units[{s}] = stems;
            else
                children[leading(s)[depth]].push_back(s);
        }
        for (const auto& [token, child] : children) add(child, depth + 1, stems, of_stem);
    }

    const PrefixSamples& samples_;
    const UnitLimits limits_;
};

Units sets_of(const PackUnits& found, const PrefixOrder& prefixes) {
    Units units;
    int32_t place = 0;
    for (const auto& [first, end, stem] : found.units) {
        EXPECT_EQ(first, place);  // in walk order, nothing left out
        place = end;
        std::vector<int32_t> samples(prefixes.order.begin() + first, prefixes.order.begin() + end), depths;
        std::sort(samples.begin(), samples.end());
        for (int32_t s = stem; s >= 0; s = found.stems[static_cast<size_t>(s)].parent)
            depths.insert(depths.begin(), found.stems[static_cast<size_t>(s)].depth);
        units[samples] = depths;
    }
    EXPECT_EQ(place, std::ssize(prefixes.order));
    return units;
}

TEST(PackUnits, AreThoseOfTheDefinition) {
    size_t stems = 0, bundles = 0;
    for (uint64_t seed = 0; seed < 120; ++seed) {
        const PrefixSamples samples = random_prefix_samples(seed, 1 + static_cast<int>(seed % 40));
        Draw draw(seed);
        const int64_t longest = *std::max_element(samples.lengths.begin(), samples.lengths.end());
        const UnitLimits limits{.tokens = longest + draw.below(100), .min_shared = 1 + draw.below(8)};
        const PackUnits found = pack_units(samples.lengths, samples.prefixes, limits);
        ASSERT_EQ(sets_of(found, samples.prefixes), NaiveUnits(samples, limits).units) << "seed " << seed;
        for (size_t s = 1; s < found.stems.size(); ++s)
            ASSERT_LT(found.stems[s].parent, static_cast<int32_t>(s)) << "seed " << seed;
        stems += found.stems.size() - 1;
        for (const auto& [first, end, stem] : found.units) bundles += end - first > 1;
    }
    EXPECT_GT(stems, 100u);
    EXPECT_GT(bundles, 100u);
}

/// `of` samples of 100 tokens, of which `alike` begin with the same 5.
PackUnits behind_a_short_prompt(int32_t alike, int32_t of) {
    PrefixOrder prefixes{.order = std::vector<int32_t>(static_cast<size_t>(of)), .lcp = {}};
    std::iota(prefixes.order.begin(), prefixes.order.end(), 0);
    for (int32_t k = 0; k < of; ++k) prefixes.lcp.push_back(0 < k && k < alike ? 5 : 0);
    return pack_units(std::vector<int64_t>(prefixes.order.size(), 100), prefixes, {.tokens = 1000, .min_shared = 64});
}

TEST(PackUnits, AShortPromptThatNearlyAllHaveIsAStem) {
    for (const auto& [alike, stems] : {std::pair{32, 2}, std::pair{30, 2}, std::pair{29, 1}}) {
        const PackUnits found = behind_a_short_prompt(alike, 32);
        EXPECT_EQ(std::ssize(found.stems), stems) << alike;
        EXPECT_EQ(found.stems.back().depth, stems == 2 ? 5 : 0) << alike;
        EXPECT_EQ(found.units.size(), 32u) << alike;
    }
}

TEST(PackUnits, EqualSamplesAreUnitsUntilTheyRepresentTooMuch) {
    const int64_t most = UnitLimits().most_represented * 200;
    for (const auto& [count, units] : {std::pair{most / 100 - 1, 1}, std::pair{most / 100, 128}}) {
        const auto n = static_cast<size_t>(count);
        PrefixOrder prefixes{.order = std::vector<int32_t>(n), .lcp = std::vector<int32_t>(n, 100)};
        std::iota(prefixes.order.begin(), prefixes.order.end(), 0);
        prefixes.lcp[0] = 0;
        const PackUnits found = pack_units(std::vector<int64_t>(n, 100), prefixes, {.tokens = 200, .min_shared = 64});
        EXPECT_EQ(std::ssize(found.units), units);
    }
}

TEST(PackUnits, NoSamplesHaveNoUnits) {
    const PackUnits none = pack_units({}, {}, {.tokens = 10, .min_shared = 1});
    EXPECT_TRUE(none.units.empty());
    EXPECT_EQ(none.stems.size(), 1u);
}

}  // namespace
}  // namespace colonnade
