// links: attention
// The index arithmetic of Hopper's backward against plain loops, without a GPU.
#include "attention/hopper/backward_maps.h"

#include <gtest/gtest.h>

#include <bit>
#include <climits>
#include <map>
#include <vector>

#include "engine/philox.h"

namespace colonnade {
namespace {

using namespace hopper;

class Draw {
  public:
    explicit Draw(uint64_t seed) : philox_{seed, 0} {}
    int below(int n) { return static_cast<int>(philox_.below(count_++, static_cast<uint64_t>(n))); }

  private:
    Philox philox_;
    uint64_t count_ = 0;
};

TEST(HopperBackwardMaps, HiddenRowsAreThoseOfTheBounds) {
    Draw draw(1);
    const auto hidden = [](int row, int from, int to) { return row >= from && row < to; };
    for (int n = 0; n < 20000; ++n) {
        const int first_row = 64 * draw.below(4);
        int b[5];
        for (int& x : b) {
            const int kind = draw.below(8);
            x = kind == 0 ? INT_MIN : kind == 1 ? INT_MAX : draw.below(330) - 20;
        }
        if (b[4] == INT_MIN || b[4] == INT_MAX) b[4] = 0;
        for (const int pair : {0, 2, 4, 6}) {
            const uint32_t word = hidden_rows(b[0], b[1], b[2], b[3], b[4], first_row, pair);
            ASSERT_EQ(word & 0xccccccccu, 0u);
            for (int j = 0; j < 8; ++j)
                for (int e = 0; e < 2; ++e) {
                    const int row = first_row + 8 * j + pair + e;
                    ASSERT_EQ(word >> (4 * j + e) & 1, hidden(row, b[0], b[1]) || hidden(row, b[2], b[3]) || row < b[4])
                        << "row " << row << ", bounds " << b[0] << " " << b[1] << " " << b[2] << " " << b[3]
                        << ", causal " << b[4];
                }
        }
    }
}

/// As the threads of a warpgroup write an accumulator [64, 64], and as the rounding kernel reads it.
TEST(HopperBackwardMaps, SumsAreFoundWhereTheyWerePut) {
    std::vector<int> block(sum_block, -1);
    for (int thread = 0; thread < 128; ++thread)
        for (int element = 0; element < 32; ++element) {
            const int j = element / 4, r = element / 2 % 2, e = element % 2, lane = thread % 32;
            const int row = 16 * (thread / 32) + lane / 4 + 8 * r, column = 8 * j + 2 * (lane % 4) + e;
            const int byte = 16 * thread + 2048 * j + 4 * (element % 4);
            ASSERT_EQ(std::exchange(block[static_cast<size_t>(byte / 4)], 64 * row + column), -1);
        }
    for (int j = 0; j < 8; ++j)
        for (int warp = 0; warp < 4; ++warp)
            for (int row = 0; row < 8; ++row)
                for (int l = 0; l < 4; ++l)
                    for (int i = 0; i < 4; ++i)
                        ASSERT_EQ(block[static_cast<size_t>(sums_of(j, warp, row) + 4 * l + i)],
                                  64 * (16 * warp + row + i / 2 * 8) + 8 * j + 2 * l + i % 2);
}

TEST(HopperBackwardMaps, TheScheduleHasEveryItemOnce) {
    for (const int pairs : {1, 5, 16})
        for (const int slices : {1, 3})
            for (const int kv_heads : {1, 4, 7})
                for (const int section : {1, 3, 7}) {
                    if (section > kv_heads) continue;
                    std::vector<int32_t> order;
                    for (int i = 0; i < pairs * slices; ++i) order.push_back(pairs * slices - 1 - i);
                    for (const bool by_order : {true, false}) {
                        const Schedule s{by_order ? order.data() : nullptr, pairs, slices, kv_heads, section};
                        std::map<std::array<int, 3>, int> seen;
                        std::map<std::array<int, 2>, int> last_pair;
                        for (unsigned i = 0; i < s.items(); ++i) {
                            const Scheduled x = scheduled(s, i);
                            ASSERT_TRUE(x.slice >= 0 && x.slice < slices && x.pair >= 0 && x.pair < pairs);
                            ASSERT_TRUE(x.kv_head >= 0 && x.kv_head < kv_heads);
                            ASSERT_EQ(++(seen[{x.slice, x.pair, x.kv_head}]), 1);
                            if (by_order) continue;
                            const auto [it, first] = last_pair.try_emplace({x.slice, x.kv_head}, pairs);
                            ASSERT_LT(x.pair, it->second) << "pairs go down";
                            it->second = x.pair;
                        }
                        ASSERT_EQ(std::ssize(seen), pairs * slices * kv_heads);
                    }
                }
}

/// CTAs that take items off the list and add by tickets, one that may go on at a time, in random order: turns of a row block
/// are 0, 1, 2 .. for those that are active there, and nobody waits for ever.
TEST(HopperBackwardMaps, TicketsAreServedWhateverTheCtas) {
    Draw draw(2);
    for (int round = 0; round < 60; ++round) {
        const int row_blocks = 1 + draw.below(12), column_blocks = 1 + draw.below(90), pairs = (column_blocks + 1) / 2,
                  words = (column_blocks + 31) / 32, slices = 1 + draw.below(2), kv_heads = 1 + draw.below(3);
        const auto size = [](int64_t n) { return static_cast<size_t>(n); };
        std::vector<uint32_t> active(size(slices) * size(row_blocks) * size(words));
        const int density = 1 + draw.below(6);
        const auto word = [&](int slice, int block, int w) -> uint32_t& {
            return active[(size(slice) * size(row_blocks) + size(block)) * size(words) + size(w)];
        };
        for (int s = 0; s < slices; ++s)
            for (int b = 0; b < row_blocks; ++b)
                for (int c = 0; c < column_blocks; ++c)
                    if (draw.below(density) == 0) word(s, b, c / 32) |= 1u << c % 32;
        const auto is_active = [&](int s, int b, int pair) {
            return (word(s, b, pair / 16) >> 2 * (pair % 16) & 3) != 0;
        };
        const auto turn = [&](int s, int b, int pair) {
            int before = 0;
            for (int w = 0; w < words; ++w) before += std::popcount(later_pairs(word(s, b, w), w, pair));
            return before;
        };
        for (int s = 0; s < slices; ++s)
            for (int b = 0; b < row_blocks; ++b) {
                int expected = 0;
                for (int pair = pairs - 1; pair >= 0; --pair) {
                    if (!is_active(s, b, pair)) continue;
                    ASSERT_EQ(turn(s, b, pair), expected++);
                }
            }

        struct Cta {
            Scheduled item;
            int block = 0;
            bool busy = false;
        };
        const Schedule schedule{nullptr, pairs, slices, kv_heads, 1 + draw.below(kv_heads)};
        std::vector<Cta> ctas(size(1 + draw.below(9)));
        std::map<std::array<int, 3>, int> tickets;
        unsigned next = 0;
        for (size_t stuck = 0; stuck < ctas.size();) {
            stuck = 0;
            const size_t first = size(draw.below(static_cast<int>(ctas.size())));
            for (size_t i = 0; i < ctas.size(); ++i) {
                Cta& cta = ctas[(first + i) % ctas.size()];
                if (!cta.busy && next == schedule.items()) {
                    ++stuck;
                    continue;
                }
                if (!cta.busy) cta = {scheduled(schedule, next++), 0, true};
                while (cta.block < row_blocks && !is_active(cta.item.slice, cta.block, cta.item.pair)) ++cta.block;
                if (cta.block == row_blocks) {
                    cta.busy = false;
                    continue;
                }
                int& ticket = tickets[{cta.item.slice, cta.item.kv_head, cta.block}];
                if (ticket != turn(cta.item.slice, cta.block, cta.item.pair)) {
                    ++stuck;
                    continue;
                }
                ++ticket, ++cta.block;
            }
        }
        ASSERT_EQ(next, schedule.items());
        for (const Cta& cta : ctas) ASSERT_FALSE(cta.busy) << "waits for ever";
    }
}

}  // namespace
}  // namespace colonnade
