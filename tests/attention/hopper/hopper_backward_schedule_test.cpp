// A simulation, without a GPU, of the schedule of Hopper's backward and of the tickets that order additions to sums of
// dQ.
#include "attention/hopper/backward_schedule.h"

#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <vector>

#include "attention/mask_families.h"
#include "attention/tile_plan.h"
#include "tests/support/draw.h"

namespace colonnade {
namespace {

using namespace hopper;

TEST(HopperBackwardSchedule, TheScheduleHasEveryItemOnce) {
    for (const int pairs : {1, 5, 16})
        for (const int sheets : {1, 3})
            for (const int kv_heads : {1, 4, 7})
                for (const int section : {1, 3, 7, 20})
                    for (const bool by_order : {true, false}) {
                        if (section > kv_heads * (by_order ? 1 : sheets)) continue;
                        std::vector<int32_t> order;
                        for (int i = 0; i < pairs * sheets; ++i) order.push_back(pairs * sheets - 1 - i);
                        const Schedule s{by_order ? order.data() : nullptr, pairs, sheets, kv_heads, section};
                        std::map<std::array<int, 3>, int> seen;
                        std::map<std::array<int, 2>, int> last_pair;
                        for (unsigned i = 0; i < s.items(); ++i) {
                            const Scheduled x = scheduled(s, section, i);
                            ASSERT_TRUE(x.sheet >= 0 && x.sheet < sheets && x.block_pair >= 0 && x.block_pair < pairs);
                            ASSERT_TRUE(x.kv_head >= 0 && x.kv_head < kv_heads);
                            ASSERT_EQ(++(seen[{x.sheet, x.block_pair, x.kv_head}]), 1);
                            if (by_order) continue;
                            const auto [it, first] = last_pair.try_emplace({x.sheet, x.kv_head}, pairs);
                            ASSERT_EQ(x.block_pair, it->second - 1) << "pairs go down";
                            it->second = x.block_pair;
                            int begun = 0;
                            for (const auto& [head, pair] : last_pair) begun += pair > 0;
                            ASSERT_LE(begun, section) << "heads at once";
                        }
                        ASSERT_EQ(std::ssize(seen), pairs * sheets * kv_heads);
                    }
}

/// The rows and heads that items add to, and their order, from the plan's row maps as in the kernel.
class Sums {
  public:
    struct Size {
        int batch, heads, kv_heads, mask_heads, row_blocks, column_blocks;
    };
    /// The turns at sums of dQ of each item.
    struct Turn {
        int sums;
        uint32_t turn;
    };

    explicit Sums(const Size& size)
        : of_(size), words_((size.column_blocks + 31) / 32), active_(at(sheets()) * at(size.row_blocks) * at(words_)) {}
    Sums(const TilePlan& plan, int heads, int kv_heads)
        : Sums({static_cast<int>(plan.batch), heads, kv_heads, static_cast<int>(plan.heads),
                static_cast<int>(plan.row_blocks), static_cast<int>(plan.column_blocks)}) {
        for (int list = 0; list < sheets() * of_.row_blocks; ++list)
            for (int64_t t = plan.cpu.by_row_begin[at(list)]; t < plan.cpu.by_row_begin[at(list) + 1]; ++t)
                activate(list / of_.row_blocks, list % of_.row_blocks, plan.cpu.by_row[static_cast<size_t>(t)].index);
    }

    int sheets() const { return of_.batch * of_.mask_heads; }
    int pairs() const { return (of_.column_blocks + 1) / 2; }
    int count() const { return of_.batch * of_.heads * of_.row_blocks; }
    Schedule schedule() const {
        const int group = of_.heads / of_.kv_heads, heads_per_mask = of_.heads / of_.mask_heads;
        return {nullptr, pairs(), sheets(), (heads_per_mask + group - 1) / group, 0};
    }
    void activate(int sheet, int block, int column_block) {
        active_[row(sheet, block) + at(column_block / 32)] |= 1u << column_block % 32;
    }
    bool is_active(int sheet, int block, int pair) const {
        return (active_[row(sheet, block) + at(pair / 16)] >> 2 * (pair % 16) & 3) != 0;
    }
    uint32_t turn(int sheet, int block, int pair) const {
        uint32_t before = 0;
        for (int w = 0; w < words_; ++w)
            before += static_cast<uint32_t>(std::popcount(later_pairs(active_[row(sheet, block) + at(w)], w, pair)));
        return before;
    }
    std::vector<Turn> turns(const Scheduled& x) const {
        const int group = of_.heads / of_.kv_heads, heads_per_mask = of_.heads / of_.mask_heads,
                  mask_head = x.sheet % of_.mask_heads, batch = x.sheet / of_.mask_heads,
                  kv_head = (mask_head * heads_per_mask + group - 1) / group + x.kv_head;
        std::vector<Turn> turns;
        if (kv_head >= of_.kv_heads || kv_head * group >= (mask_head + 1) * heads_per_mask) return turns;
        for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const int sheet = batch * of_.mask_heads + head / heads_per_mask;
            for (int block = 0; block < of_.row_blocks; ++block)
                if (is_active(sheet, block, x.block_pair))
                    turns.push_back(
                        {(batch * of_.heads + head) * of_.row_blocks + block, turn(sheet, block, x.block_pair)});
        }
        return turns;
    }
    /// {lags, slots}, counted as in the kernel that builds the plan.
    std::array<int64_t, 2> lags() const {
        std::array<int64_t, 2> sums{};
        for (int sheet = 0; sheet < sheets(); ++sheet)
            for (int pair = 0; pair < pairs(); ++pair) {
                int lag = 0, ahead = 0;
                for (int first = 0; first < of_.row_blocks; first += 32) {
                    uint32_t own = 0, next = 0;
                    for (int block = first; block < std::min(first + 32, of_.row_blocks); ++block) {
                        own |= static_cast<uint32_t>(is_active(sheet, block, pair)) << (block - first);
                        if (pair + 1 < pairs())
                            next |= static_cast<uint32_t>(is_active(sheet, block, pair + 1)) << (block - first);
                    }
                    lag = std::max(lag, lag_in_word(own, next, ahead));
                    ahead += std::popcount(next) - std::popcount(own);
                    sums[1] += std::popcount(own);
                }
                sums[0] += lag;
            }
        return sums;
    }
    int heads_at_once(int ctas) const { return hopper::heads_at_once(schedule(), lags()[0], lags()[1], ctas); }

  private:
    static size_t at(int n) { return static_cast<size_t>(n); }
    size_t row(int sheet, int block) const { return (at(sheet) * at(of_.row_blocks) + at(block)) * at(words_); }

    Size of_;
    int words_;
    std::vector<uint32_t> active_;
};

/// CTAs that take items from the list and add in turn.
class Play {
  public:
    Play(const Sums& sums, int ctas, int section, bool by_tickets = true)
        : sums_(sums),
          schedule_(sums.schedule()),
          section_(section),
          by_tickets_(by_tickets),
          tickets_(static_cast<size_t>(sums.count())),
          ctas_(static_cast<size_t>(ctas)) {}

    /// A CTA makes its next addition, or takes an item. Returns false if it must wait or nothing is left. Its addition
    /// is visible from `passed` on.
    bool step(size_t cta, std::vector<int>& passed) {
        auto& [turns, next] = ctas_[cta];
        while (next == turns.size()) {
            if (taken_ == schedule_.items()) return false;
            turns = sums_.turns(scheduled(schedule_, section_, taken_++)), next = 0;
        }
        const Sums::Turn& turn = turns[next];
        if (by_tickets_ && tickets_[static_cast<size_t>(turn.sums)] != turn.turn) return false;
        passed.push_back(turn.sums), ++next;
        return true;
    }
    void pass(std::vector<int>& passed) {
        for (const int sums : passed) ++tickets_[static_cast<size_t>(sums)];
        passed.clear();
    }
    bool done() const {
        return taken_ == schedule_.items() &&
               std::ranges::all_of(ctas_, [](const Cta& cta) { return cta.next == cta.turns.size(); });
    }
    size_t ctas() const { return ctas_.size(); }

    /// Runs one CTA at a time for a few additions, in random order, until all are done or wait for each other.
    void at_random(Draw& draw) {
        std::vector<int> passed;
        for (bool moved = true; moved;) {
            moved = false;
            const size_t first = static_cast<size_t>(draw.below(static_cast<int>(ctas_.size())));
            for (size_t i = 0; i < ctas_.size(); ++i)
                for (int n = draw.below(6); n >= 0 && step((first + i) % ctas_.size(), passed); --n)
                    pass(passed), moved = true;
        }
    }
    /// Runs all CTAs at the same time, one addition each per step, until all are done. Returns the number of steps.
    int64_t in_step() {
        std::vector<int> passed;
        for (int64_t steps = 0;; ++steps) {
            for (size_t cta = 0; cta < ctas_.size(); ++cta) step(cta, passed);
            if (passed.empty()) return steps;
            pass(passed);
        }
    }

  private:
    struct Cta {
        std::vector<Sums::Turn> turns;
        size_t next = 0;
    };
    const Sums& sums_;
    Schedule schedule_;
    int section_;
    bool by_tickets_;
    std::vector<uint32_t> tickets_;
    std::vector<Cta> ctas_;
    unsigned taken_ = 0;
};

/// The turns at a row block are 0, 1, 2, ... for the pairs that are active there, the last pair first.
void expect_turns(const Sums& sums, int row_blocks) {
    for (int s = 0; s < sums.sheets(); ++s)
        for (int b = 0; b < row_blocks; ++b) {
            uint32_t expected = 0;
            for (int pair = sums.pairs() - 1; pair >= 0; --pair)
                if (sums.is_active(s, b, pair)) {
                    ASSERT_EQ(sums.turn(s, b, pair), expected++);
                }
        }
}

/// No CTA waits forever.
void expect_served(const Sums& sums, Draw& draw, const std::string& name) {
    const Schedule s = sums.schedule();
    const int ctas = 1 + draw.below(9);
    for (const int section : {sums.heads_at_once(ctas), 1 + draw.below(s.sheets * s.kv_heads)}) {
        Play play(sums, ctas, section);
        play.at_random(draw);
        ASSERT_TRUE(play.done()) << name << ": " << ctas << " CTAs, " << section << " heads at once";
    }
}

TEST(HopperBackwardSchedule, TicketsAreServedWhateverTheCtas) {
    Draw draw(2);
    for (int round = 0; round < 60; ++round) {
        const int kv_heads = 1 + draw.below(3), heads = kv_heads * (1 + draw.below(4)), batch = 1 + draw.below(2);
        int mask_heads = 1 + draw.below(heads);
        while (heads % mask_heads != 0) --mask_heads;  // more of them than key/value heads, or as many, or fewer
        const Sums::Size size{batch, heads, kv_heads, mask_heads, 1 + draw.below(12), 1 + draw.below(90)};
        Sums sums(size);
        const int density = 1 + draw.below(6);
        for (int s = 0; s < sums.sheets(); ++s)
            for (int b = 0; b < size.row_blocks; ++b)
                for (int c = 0; c < size.column_blocks; ++c)
                    if (draw.below(density) == 0) sums.activate(s, b, c);
        expect_turns(sums, size.row_blocks);
        expect_served(sums, draw, fmt::format("round {}", round));
    }
}

TEST(HopperBackwardSchedule, TicketsAreServedForEveryFamily) {
    Draw draw(3);
    for (const int64_t n : {300, 2500})
        for (const MaskFamily& family : mask_families())
            for (const auto& [heads, kv_heads] : {std::pair{4, 4}, {4, 2}, {4, 1}}) {
                const ColumnMask mask = family.build(default_parameters(n, n, 2, 3));
                const Sums sums(make_tile_plan(stack({mask, mask})), heads, kv_heads);
                expect_turns(sums, static_cast<int>((n + 63) / 64));
                expect_served(sums, draw, std::string(family.name));
            }
}

/// Two items go down their rows. The one with the later turn never waits if it starts by its lag after the other, and
/// waits at some row if it starts earlier.
TEST(HopperBackwardSchedule, LagsAreTheLeastThatSpareWaiting) {
    Draw draw(4);
    for (int round = 0; round < 3000; ++round) {
        const int row_blocks = 1 + draw.below(100);
        Sums sums({1, 1, 1, 1, row_blocks, 4});
        for (int pair = 0; pair < 2; ++pair)
            for (int run = draw.below(4); run > 0; --run) {
                const int first = draw.below(row_blocks), end = first + draw.below(row_blocks - first) + 1;
                for (int b = first; b < end; ++b) sums.activate(0, b, 2 * pair + draw.below(2));
            }
        const auto waits = [&](int begin) {
            int own = begin, next = 0;
            for (int b = 0; b < row_blocks; ++b) {
                if (sums.is_active(0, b, 0) && sums.is_active(0, b, 1) && own < next + 1) return true;
                own += sums.is_active(0, b, 0), next += sums.is_active(0, b, 1);
            }
            return false;
        };
        const int lag = static_cast<int>(sums.lags()[0]);
        ASSERT_FALSE(waits(lag));
        ASSERT_TRUE(lag == 0 || waits(lag - 1));
    }
}

TEST(HopperBackwardSchedule, HeadsAtOnce) {
    const Schedule s{nullptr, 256, 4, 32, 0};
    EXPECT_EQ(heads_at_once(s, 0, 65792, 132), 1) << "nothing lags";
    EXPECT_EQ(heads_at_once(s, 0, 0, 132), 1) << "nothing is active";
    EXPECT_EQ(heads_at_once(s, 255, 131072, 132), 1) << "long items";
    EXPECT_EQ(heads_at_once(s, 244, 21574, 132), 3) << "lags of 244, and 163 slots a CTA and head";
    EXPECT_EQ(heads_at_once(s, 21574, 21574, 132), 128) << "all";
    EXPECT_EQ(heads_at_once({nullptr, 256, 1, 1, 0}, 255, 256, 132), 1);
}

/// One CTA per multiprocessor of an H100, with the masks of the kernel benchmark.
TEST(HopperBackwardSchedule, WaitingCostsLittleForEveryFamily) {
    const int64_t n = 16384;
    const int ctas = 132;
    for (const MaskFamily& family : mask_families()) {
        const Sums sums(make_tile_plan(family.build(default_parameters(n, n))), 32, 32);
        const auto steps = [&](bool by_tickets) {
            Play play(sums, ctas, sums.heads_at_once(ctas), by_tickets);
            const int64_t n_steps = play.in_step();
            EXPECT_TRUE(play.done());
            return static_cast<double>(n_steps);
        };
        EXPECT_LE(steps(true), 1.1 * steps(false)) << family.name << " of " << n;
    }
}

}  // namespace
}  // namespace colonnade
