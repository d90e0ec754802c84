// A simulation, without a GPU, of the schedule of Hopper's backward and of the tickets that order additions to sums of
// dQ.
#include "attention/hopper/backward_schedule.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "attention/mask_families.h"
#include "tests/support/backward_simulation.h"

namespace colonnade {
namespace {

using namespace hopper;

TEST(HopperBackwardSchedule, TheScheduleHasEveryItemOnce) {
    for (const int pairs : {1, 5, 16})
        for (const int sheets : {1, 3})
            for (const int kv_heads : {1, 4, 7})
                for (const int section : {1, 3, 7, 20})
                    for (const bool in_turn : {true, false}) {
                        if (section > kv_heads * (in_turn ? sheets : 1)) continue;
                        std::vector<int32_t> order;
                        for (int i = 0; i < pairs; ++i) order.push_back((3 * i + 1) % pairs);
                        const Schedule s{in_turn ? nullptr : order.data(), pairs, sheets, kv_heads, section};
                        std::map<std::array<int, 3>, int> seen;
                        std::map<std::array<int, 2>, int> done;  // items of a head
                        for (unsigned i = 0; i < s.items(); ++i) {
                            const Scheduled x = scheduled(s, section, i);
                            ASSERT_TRUE(x.sheet >= 0 && x.sheet < sheets && x.block_pair >= 0 && x.block_pair < pairs);
                            ASSERT_TRUE(x.kv_head >= 0 && x.kv_head < kv_heads);
                            ASSERT_EQ(++(seen[{x.sheet, x.block_pair, x.kv_head}]), 1);
                            const int nth = done[{x.sheet, x.kv_head}]++;
                            const bool is_last = !in_turn && x.sheet == sheets - 1;
                            ASSERT_EQ(x.block_pair, in_turn   ? pairs - 1 - nth
                                                    : is_last ? order[static_cast<size_t>(nth)]
                                                              : nth);
                            int begun = 0;
                            for (const auto& [head, items] : done) begun += items < pairs;
                            ASSERT_LE(begun, in_turn || is_last ? section : 1) << "heads at once";
                        }
                        ASSERT_EQ(std::ssize(seen), pairs * sheets * kv_heads);
                    }
}

/// The turns at a row block are 0, 1, 2, ... for the pairs that are active there: the whole ones, the last pair first,
/// then those that are cut.
void expect_turns(const Sums& sums, int row_blocks) {
    for (int s = 0; s < sums.sheets(); ++s)
        for (int b = 0; b < row_blocks; ++b) {
            uint32_t expected = 0;
            for (int pair = sums.pairs() - 1; pair >= 0; --pair)
                if (sums.is_active(s, b, pair) && sums.place_in_cut(s, pair) < 0) {
                    ASSERT_EQ(sums.turn(s, b, pair, -1), expected++);
                }
            for (int place = 0; place < std::ssize(sums.cut_entries()); ++place) {
                const int pair = sums.cut_entries()[static_cast<size_t>(place)] - s * sums.pairs();
                if (pair >= 0 && pair < sums.pairs() && sums.is_active(s, b, pair)) {
                    ASSERT_EQ(sums.turn(s, b, pair, place), expected++);
                }
            }
        }
}

/// Every slot is in one item or piece, which adds at most once to a sum; all pieces of an item have turns.
void expect_every_slot_once(const Sums& sums) {
    const Schedule s = sums.schedule();
    std::map<int, std::vector<uint32_t>> turns;
    for (unsigned i = 0; i < sums.items(); ++i)
        for (const auto& [of, turn] : sums.turns_of(s, 1, i)) turns[of].push_back(turn);
    for (auto& [of, seen] : turns) {
        std::ranges::sort(seen);
        for (size_t i = 0; i < seen.size(); ++i) ASSERT_EQ(seen[i], i) << "sums " << of;
    }
    int64_t slots = 0;
    for (int entry = 0; entry < s.block_pairs * s.sheets; ++entry) slots += sums.slots(entry);
    int64_t added = 0;
    for (const auto& [of, seen] : turns) added += of < sums.dq_sums() ? std::ssize(seen) : 0;
    ASSERT_EQ(added, slots * sums.heads_per_mask());
}

/// No CTA waits forever.
void expect_served(const Sums& sums, Draw& draw, const std::string& name) {
    const Schedule s = sums.schedule();
    const int ctas = 1 + draw.below(9);
    for (const int heads : {sums.heads_at_once(ctas), 1 + draw.below(s.sheets * s.kv_heads)}) {
        Play play(sums, ctas, Ordered::all, heads);
        play.at_random(draw);
        ASSERT_TRUE(play.done()) << name << ": " << ctas << " CTAs, " << heads << " heads at once";
    }
    Play pieces(sums, ctas, Ordered::pieces);
    pieces.at_random(draw);
    ASSERT_TRUE(pieces.done()) << name << ": " << ctas << " CTAs";
}

/// A cut of entries that are about as long as others, into pieces of any size.
Cut any_cut(const Sums& sums, Draw& draw) {
    const int words = sums.group() * sums.column_words(), entries = draw.below(4) == 0 ? 0 : 1 + draw.below(6);
    return {.longest_item = draw.below(sums.group() * sums.slots(draw.below(sums.sheets() * sums.pairs())) + 1),
            .entries = sums.heads_per_mask() % sums.group() == 0 ? entries : 0,
            .words = std::max((words + most_pieces - 1) / most_pieces, 1 + draw.below(words))};
}

TEST(HopperBackwardSchedule, TicketsAreServedWhateverTheCtas) {
    Draw draw(2);
    int cut = 0;
    for (int round = 0; round < 60; ++round) {
        const int kv_heads = 1 + draw.below(3), heads = kv_heads * (1 + draw.below(4)), batch = 1 + draw.below(2);
        int mask_heads = 1 + draw.below(heads);
        while (heads % mask_heads != 0) --mask_heads;  // more of them than key/value heads, or as many, or fewer
        const Sums::Size size{
            batch, heads, kv_heads, mask_heads, 1 + draw.below(round % 2 ? 12 : 80), 1 + draw.below(90)};
        Sums sums(size);
        const int density = 1 + draw.below(6);
        for (int s = 0; s < sums.sheets(); ++s)
            for (int b = 0; b < size.row_blocks; ++b)
                for (int c = 0; c < size.column_blocks; ++c)
                    if (draw.below(density) == 0) sums.activate(s, b, c);
        sums.cut(any_cut(sums, draw));
        cut += sums.cut_items() > 0;
        expect_turns(sums, size.row_blocks);
        expect_every_slot_once(sums);
        expect_served(sums, draw, fmt::format("round {}", round));
    }
    EXPECT_GT(cut, 10) << "rounds with pieces";
}

TEST(HopperBackwardSchedule, TicketsAreServedForEveryFamily) {
    Draw draw(3);
    for (const int64_t n : {300, 2500})
        for (const MaskFamily& family : mask_families())
            for (const auto& [heads, kv_heads] : {std::pair{4, 4}, {4, 2}, {4, 1}}) {
                const ColumnMask mask = family.build(default_parameters(n, n, 2, 3));
                Sums sums(make_tile_plan(stack({mask, mask})), heads, kv_heads);
                sums.cut(any_cut(sums, draw));
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
        Sums sums(make_tile_plan(family.build(default_parameters(n, n))), 32, 32);
        sums.cut(sums.cut_of_launch());
        const auto steps = [&](Ordered ordered) {
            Play play(sums, ctas, ordered);
            const int64_t n_steps = play.in_step();
            EXPECT_TRUE(play.done());
            return static_cast<double>(n_steps);
        };
        EXPECT_LE(steps(Ordered::all), 1.1 * steps(Ordered::pieces)) << family.name << " of " << n;
    }
}

/// Steps of a launch over those that its slots would take if all CTAs had the same number.
double imbalance(const Sums& sums, Ordered ordered) {
    Play play(sums, cut_ctas, ordered);
    const auto steps = static_cast<double>(play.in_step());
    EXPECT_TRUE(play.done());
    return steps * cut_ctas / static_cast<double>(sums.lags()[1] * sums.heads_per_mask());
}

/// An item of grouped heads has the rows of all its heads. Documents that end within its columns must not wait for long
/// ones that begin there.
TEST(HopperBackwardSchedule, DocumentsOfGroupedHeadsWaitLittle) {
    const int64_t n = 8192;
    for (const auto& [heads, kv_heads] : {std::pair{32, 8}, {64, 8}, {28, 4}})
        for (const char* family : {"causal_document", "document", "share_question"}) {
            const std::vector<ColumnMask> rows(8, mask_family(family).build(default_parameters(n, n)));
            Sums sums(make_tile_plan(stack(rows)), heads, kv_heads);
            sums.cut(sums.cut_of_launch());
            EXPECT_LE(imbalance(sums, Ordered::all), 1.12 * imbalance(sums, Ordered::pieces))
                << heads << ":" << kv_heads << " " << family;
        }
}

/// Without turns no CTA works much longer than the others, however few the heads.
TEST(HopperBackwardSchedule, CtasEndTogether) {
    const int64_t n = 16384;
    for (const size_t batch : {1, 3})
        for (const auto& [heads, kv_heads] : {std::pair{32, 8}, {28, 4}})
            for (const MaskFamily& family : mask_families()) {
                const std::vector<ColumnMask> rows(batch, family.build(default_parameters(n, n)));
                Sums sums(make_tile_plan(stack(rows)), heads, kv_heads);
                sums.cut(sums.cut_of_launch());
                EXPECT_LE(imbalance(sums, Ordered::pieces), 1.3)
                    << batch << " rows, " << heads << ":" << kv_heads << " " << family.name;
            }
}

/// Stems that all rows see, with heads in groups.
TEST(HopperBackwardSchedule, PiecesOfHeavyColumnsFillTheGpu) {
    const int64_t n = 16384;
    for (const auto& [family, leaf] :
         {std::pair{"chats_behind_stem", 300}, {"chats_behind_stem", 100}, {"rollouts", 1500}}) {
        FamilyParameters p = default_parameters(n, n);
        p.stem = 1000, p.leaf = leaf;
        Sums sums(make_tile_plan(mask_family(family).build(p)), 28, 4);
        const auto imbalances = [&](const Cut& cut) {
            sums.cut(cut);
            return std::pair{imbalance(sums, Ordered::pieces), imbalance(sums, Ordered::all)};
        };
        const auto whole = imbalances({.longest_item = 0, .entries = 0, .words = 1}),
                   cut = imbalances(sums.cut_of_launch());
        EXPECT_GT(sums.pieces(), 1) << family;
        EXPECT_GT(whole.first, 1.5 * cut.first) << family;
        EXPECT_LT(cut.first, 1.2) << family << " of " << leaf;
        EXPECT_LT(cut.second, 0.6 * whole.second) << family << " of " << leaf << ", deterministic";
    }
}

/// Items that start early enough do not outlast the others: they stay whole, and cost what they did.
TEST(HopperBackwardSchedule, CausalAndDocumentsStayWhole) {
    for (const auto& [n, heads, kv_heads] :
         {std::tuple{16384, 28, 4}, {8192, 28, 4}, {32768, 28, 4}, {16384, 32, 8}, {8192, 32, 32}, {4096, 32, 8}})
        for (const int batch : {1, 2, 4})
            for (const char* family : {"causal", "full", "causal_document", "document", "sliding_window"}) {
                const std::vector<ColumnMask> rows(static_cast<size_t>(batch),
                                                   mask_family(family).build(default_parameters(n, n)));
                Sums sums(make_tile_plan(stack(rows)), heads, kv_heads);
                sums.cut(sums.cut_of_launch());
                EXPECT_EQ(sums.cut_items(), 0) << family << " of " << n << ", " << heads << ":" << kv_heads;
            }
}

TEST(HopperBackwardSchedule, CutsFitTheirBounds) {
    Draw draw(6);
    for (int round = 0; round < 20000; ++round) {
        const int group = 1 + draw.below(64), kv_heads = 1 + draw.below(80);
        CutSizes s{.slots = int64_t{1} + draw.below(1 << 30),
                   .group = group,
                   .heads_per_mask = group * kv_heads,
                   .sheets = 1 + draw.below(4),
                   .kv_heads = kv_heads,
                   .section = 1 + draw.below(kv_heads),
                   .column_words = 1 + draw.below(round % 2 ? 40 : 600)};
        const Cut cut = cut_of(s);
        ASSERT_TRUE(cut.words >= 1 && cut.longest_item >= 64);
        ASSERT_TRUE(cut.entries <= most_cut_entries && cut.entries * kv_heads <= most_cut_items);
        const int pieces = pieces_of(group * s.column_words, cut.words);
        ASSERT_LE(pieces, most_pieces);
        ASSERT_TRUE(cut.entries == 0 || pieces > 1);
        s.heads_per_mask = group * kv_heads + 1;  // a key/value head's query heads have different masks
        ASSERT_TRUE(group == 1 || cut_of(s).entries == 0);
    }
    std::set<std::array<int, 3>> seen;
    for (unsigned i = 0; i < 3 * 5 * 7; ++i) {
        const ScheduledPiece x = scheduled_piece(i, 3, 5);
        ASSERT_TRUE(x.entry < 3 && x.kv_head < 5 && x.piece < 7);
        ASSERT_TRUE(seen.insert({x.entry, x.kv_head, x.piece}).second);
    }
}

}  // namespace
}  // namespace colonnade
