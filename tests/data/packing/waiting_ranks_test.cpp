// How much more the slowest rank has to do than an average one, as packed and as dealt, on lengths like those of real
// data. Prints the table of docs/distributed.md.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "data/packing/step_layout.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// Samples as the packer knows them, in walk order if they begin alike.
struct Samples {
    const char* name;
    int64_t packing_length;
    std::vector<int64_t> lengths{}, visible{};
    PrefixOrder prefixes{};

    /// Sequences of the numbers {shared, own tokens}.
    void add(const std::vector<std::pair<int64_t, int64_t>>& sequences) {
        int64_t tokens = 0, pairs = 0;
        for (const auto& [shared, own] : sequences) {
            tokens += own;
            pairs += visible_pairs(shared + own, shared);
        }
        if (tokens > packing_length) return;
        lengths.push_back(tokens);
        visible.push_back(pairs);
    }
    /// A text that begins like the one before it.
    void add_text(int64_t length, int64_t lcp) {
        add({{0, length}});
        prefixes.order.push_back(static_cast<int32_t>(prefixes.order.size()));
        prefixes.lcp.push_back(static_cast<int32_t>(lcp));
    }
    PackPlan plan() const { return Packer(lengths, {.packing_length = packing_length}, prefixes).plan(0); }
};

/// Log-normal numbers.
class Lengths {
  public:
    int64_t draw(double mean, double sigma, int64_t longest) {
        const double log = std::log(mean) - sigma * sigma / 2 + sigma * random_.normal(drawn_++);
        return std::clamp<int64_t>(std::llround(std::exp(log)), 1, longest);
    }
    int64_t below(int64_t n) { return static_cast<int64_t>(random_.below(drawn_++, static_cast<uint64_t>(n))); }

  private:
    Philox random_{11, 0};
    uint64_t drawn_ = 0;
};

Samples documents(const char* name, double mean, int64_t packing_length) {
    Samples samples{.name = name, .packing_length = packing_length};
    Lengths lengths;
    for (int i = 0; i < 30000; ++i) samples.add({{0, lengths.draw(mean, 1.2, packing_length)}});
    return samples;
}

Samples rankings(const char* name, int64_t fewest, int64_t most, int64_t packing_length) {
    Samples samples{.name = name, .packing_length = packing_length};
    Lengths lengths;
    for (int i = 0; i < 12000; ++i) {
        const int64_t prompt = lengths.draw(700, 1, 6000);
        std::vector<std::pair<int64_t, int64_t>> answers = {{0, prompt}};
        for (int64_t n = fewest + lengths.below(most - fewest + 1); n > 0; --n)
            answers.emplace_back(prompt, lengths.draw(450, 0.8, 3000));
        samples.add(answers);
    }
    return samples;
}

/// Chats whose turns are learned with their thoughts, which later turns do not see: one sample each.
Samples chats(const char* name, int64_t packing_length) {
    Samples samples{.name = name, .packing_length = packing_length};
    Lengths lengths;
    for (int i = 0; i < 8000; ++i) {
        int64_t path = lengths.draw(1000, 1, 4000);
        std::vector<std::pair<int64_t, int64_t>> turns = {{0, path}};
        for (int64_t n = 3 + lengths.below(14); n > 0; --n) {
            const int64_t next = lengths.draw(300, 0.7, 2000);
            turns.emplace_back(path, lengths.draw(600, 0.7, 4000));
            turns.emplace_back(path, next);
            path += next;
        }
        samples.add(turns);
    }
    return samples;
}

/// Texts behind a stem, each also behind what the turns before it add to the trunk.
Samples trees(const char* name, int64_t stem, int64_t leaves, double trunk, double leaf, int64_t packing_length) {
    Samples samples{.name = name, .packing_length = packing_length};
    Lengths lengths;
    for (int64_t tree = 0; tree < 16'000'000 / (stem + leaves * static_cast<int64_t>(trunk + leaf)); ++tree)
        for (int64_t path = stem, lcp = 0, i = 0; i < leaves; ++i) {
            const int64_t length = path + lengths.draw(leaf, 0.7, packing_length / 2);
            if (length > packing_length) break;
            samples.add_text(length, lcp);
            lcp = path;
            if (trunk > 0) path += lengths.draw(trunk, 0.7, packing_length / 4);
        }
    return samples;
}

TEST(WaitingRanks, WaitLessWhenPacksAreDealt) {
    const Samples all[] = {documents("documents", 1400, 8192),
                           documents("documents", 3700, 32768),
                           rankings("preference pairs", 2, 2, 8192),
                           rankings("rankings of 2 to 8 answers", 2, 8, 32768),
                           chats("chats, turn by turn", 32768),
                           trees("8 rollouts of 1500 behind 1000", 1000, 8, 0, 1500, 16384),
                           trees("agent traces of 20 turns", 3000, 20, 380, 400, 32768)};
    const std::pair<int64_t, int64_t> layouts[] = {{2, 4}, {4, 4}, {8, 4}, {8, 8}, {8, 1}};
    std::string table = fmt::format("{:<30}{:>5}", "ranks x micro-steps of one row", "row");
    for (const auto& [ranks, micro_steps] : layouts) table += fmt::format("{:>14} x {}", ranks, micro_steps);
    for (const Samples& samples : all) {
        const PackPlan plan = samples.plan();
        table += fmt::format("\n{:<30}{:>4}K", samples.name, samples.packing_length / 1024);
        for (const auto& [ranks, micro_steps] : layouts) {
            const StepLayout layout{.accumulation = micro_steps, .ranks = ranks};
            PackPlan dealt = plan;
            deal_packs(dealt, layout, samples.visible);
            const double before = slowest_over_mean(plan, layout, samples.visible) - 1,
                         after = slowest_over_mean(dealt, layout, samples.visible) - 1;
            if (micro_steps > 1)
                EXPECT_LT(after, 0.6 * before) << samples.name << ", " << ranks << " ranks";
            else
                EXPECT_NEAR(after, before, 1e-12);  // a rank has one row: there is nothing to deal
            table += fmt::format("{:>8.1f} -> {:>4.1f} %", 100 * before, 100 * after);
        }
    }
    fmt::print("{}\n", table);
}

}  // namespace
}  // namespace colonnade
