#pragma once
// A simulation of Hopper's backward: which slots its items and pieces have, in which order they add to sums, and how CTAs
// that wait for their turn get on.

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <numeric>
#include <vector>

#include "attention/hopper/backward_schedule.h"
#include "attention/tile_plan.h"
#include "tests/support/draw.h"

namespace colonnade::hopper {

/// The slots of items and pieces and the order of their additions, from the plan's row maps as in the kernel.
class Sums {
  public:
    struct Size {
        int batch, heads, kv_heads, mask_heads, row_blocks, column_blocks;
    };
    /// An item's addition to a sum: of dQ, numbered by query head and block of rows, or of dK and dV after these.
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
    int group() const { return of_.heads / of_.kv_heads; }
    int heads_per_mask() const { return of_.heads / of_.mask_heads; }
    int column_words() const { return (of_.row_blocks + 31) / 32; }
    int dq_sums() const { return of_.batch * of_.heads * of_.row_blocks; }
    /// Of head dim 128.
    Schedule schedule() const {
        const int kv_heads = (heads_per_mask() + group() - 1) / group();
        return {nullptr, pairs(), sheets(), kv_heads, heads_in_cache(int64_t{64} * of_.row_blocks, 128, kv_heads)};
    }
    void activate(int sheet, int block, int column_block) {
        active_[row(sheet, block) + at(column_block / 32)] |= 1u << column_block % 32;
    }
    bool is_active(int sheet, int block, int pair) const {
        return (active_[row(sheet, block) + at(pair / 16)] >> 2 * (pair % 16) & 3) != 0;
    }
    int slots(int entry) const {
        int n = 0;
        for (int block = 0; block < of_.row_blocks; ++block) n += is_active(entry / pairs(), block, entry % pairs());
        return n;
    }

    /// The pairs of the last sheet, longest first.
    const std::vector<int32_t>& last_order() const { return last_order_; }
    /// The longest entries, which `cut` makes pieces of.
    const std::vector<int32_t>& cut_entries() const { return cut_; }
    void cut(const Cut& cut) {
        piece_words_ = cut.words;
        std::vector<int32_t> order(at(sheets() * pairs()));
        std::iota(order.begin(), order.end(), 0);
        std::ranges::stable_sort(order, std::greater{}, [&](int entry) { return slots(entry); });
        last_order_.clear();
        cut_.clear();
        for (const int entry : order) {
            if (entry / pairs() == sheets() - 1) last_order_.push_back(entry % pairs());
            if (std::ssize(cut_) < cut.entries && int64_t{slots(entry)} * group() > cut.longest_item)
                cut_.push_back(entry);
        }
    }
    /// As for a launch.
    Cut cut_of_launch() const {
        return cut_of({.slots = lags()[1],
                       .group = group(),
                       .heads_per_mask = heads_per_mask(),
                       .sheets = sheets(),
                       .kv_heads = schedule().kv_heads,
                       .section = schedule().section,
                       .column_words = column_words()});
    }
    int pieces() const { return cut_.empty() ? 0 : pieces_of(group() * column_words(), piece_words_); }
    int cut_items() const { return static_cast<int>(cut_.size()) * schedule().kv_heads; }
    unsigned items() const { return schedule().items() + static_cast<unsigned>(cut_items() * pieces()); }

    /// The turns of item `index` of the schedule: a slot each, and for a piece one more. There are none for an item that
    /// has no slots or is cut.
    std::vector<Turn> turns_of(const Schedule& s, int section, unsigned index) const {
        if (index < s.items()) {
            const Scheduled x = scheduled(s, section, index);
            if (place_in_cut(x.sheet, x.block_pair) >= 0) return {};
            return slots_in(x, 0, group() * column_words(), -1);
        }
        const auto [entry, kv_head, piece] =
            scheduled_piece(index - s.items(), static_cast<int>(cut_.size()), s.kv_heads);
        const auto of = [&](int p) {
            return slots_in({cut_[at(entry)] / pairs(), cut_[at(entry)] % pairs(), kv_head}, p * piece_words_,
                            (p + 1) * piece_words_, entry);
        };
        std::vector<Turn> turns = of(piece);
        if (turns.empty()) return turns;
        uint32_t before = 0;
        for (int p = 0; p < piece; ++p) before += !of(p).empty();
        turns.push_back({dq_sums() + entry * s.kv_heads + kv_head, before});
        return turns;
    }
    /// Turn of a pair at a block of rows. `entry`: its place among those cut, -1 if it is whole.
    uint32_t turn(int sheet, int block, int pair, int entry) const {
        uint32_t before = 0;
        for (int w = 0; w < words_; ++w) {
            CutPairs in_word;
            for (int i = 0; i < static_cast<int>(cut_.size()); ++i) {
                const int other = cut_[at(i)] - sheet * pairs();
                if (other < 0 || other >= pairs() || other / 16 != w) continue;
                in_word.all |= 1u << 2 * (other % 16);
                if (i < entry) in_word.before |= 1u << 2 * (other % 16);
            }
            before += static_cast<uint32_t>(
                std::popcount(earlier_pairs(active_[row(sheet, block) + at(w)], w, entry < 0 ? pair : -1, in_word)));
        }
        return before;
    }
    int place_in_cut(int sheet, int pair) const {
        const auto found = std::ranges::find(cut_, sheet * pairs() + pair);
        return found == cut_.end() ? -1 : static_cast<int>(found - cut_.begin());
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
    /// The slots in some of an item's words.
    std::vector<Turn> slots_in(const Scheduled& x, int first_word, int end_word, int entry) const {
        const int mask_head = x.sheet % of_.mask_heads, batch = x.sheet / of_.mask_heads,
                  kv_head = (mask_head * heads_per_mask() + group() - 1) / group() + x.kv_head;
        std::vector<Turn> turns;
        if (kv_head >= of_.kv_heads || kv_head * group() >= (mask_head + 1) * heads_per_mask()) return turns;
        const int together = entry < 0 && heads_per_mask() % group() == 0 ? group() : 1;
        for (int h = 0; h < group(); h += together) {
            const int sheet = batch * of_.mask_heads + (kv_head * group() + h) / heads_per_mask();
            for (int word = 0; word < column_words(); word += 32)
                for (const bool shared : {true, false})
                    for (int head = kv_head * group() + h; head < kv_head * group() + h + together; ++head)
                        for (int block = 32 * word; block < std::min(32 * (word + 32), of_.row_blocks); ++block) {
                            const int of_item = h * column_words() + block / 32;
                            if (of_item < first_word || of_item >= end_word) continue;
                            if (!is_active(sheet, block, x.block_pair)) continue;
                            if (shared != (x.block_pair > 0 && is_active(sheet, block, x.block_pair - 1))) continue;
                            turns.push_back({(batch * of_.heads + head) * of_.row_blocks + block,
                                             turn(sheet, block, x.block_pair, entry)});
                        }
        }
        return turns;
    }
    static size_t at(int n) { return static_cast<size_t>(n); }
    size_t row(int sheet, int block) const { return (at(sheet) * at(of_.row_blocks) + at(block)) * at(words_); }

    Size of_;
    int words_;
    std::vector<uint32_t> active_;
    std::vector<int32_t> last_order_, cut_;
    int piece_words_ = 1;
};

/// Which additions wait for their turn: those to dQ, and to dK and dV of the pieces of an item; or the latter alone.
enum class Ordered { all, pieces };

/// CTAs that take items from the list and add in turn.
class Play {
  public:
    Play(const Sums& sums, int ctas, Ordered ordered, int section)
        : sums_(sums),
          schedule_(sums.schedule()),
          section_(section),
          ordered_(ordered),
          tickets_(static_cast<size_t>(sums.dq_sums() + sums.cut_items())),
          ctas_(static_cast<size_t>(ctas)) {
        if (ordered == Ordered::pieces) schedule_.last_order = sums.last_order().data();
    }
    Play(const Sums& sums, int ctas, Ordered ordered)
        : Play(sums, ctas, ordered, ordered == Ordered::all ? sums.heads_at_once(ctas) : sums.schedule().section) {}

    /// A CTA makes its next addition, or takes an item. Returns false if it must wait or nothing is left. Its addition
    /// is visible from `passed` on.
    bool step(size_t cta, std::vector<int>& passed) {
        auto& [turns, next] = ctas_[cta];
        while (next == turns.size()) {
            if (taken_ == sums_.items()) return false;
            turns = sums_.turns_of(schedule_, section_, taken_++), next = 0;
        }
        const Sums::Turn& turn = turns[next];
        const bool waits = ordered_ == Ordered::all || turn.sums >= sums_.dq_sums();
        if (waits && tickets_[static_cast<size_t>(turn.sums)] != turn.turn) return false;
        passed.push_back(turn.sums), ++next;
        return true;
    }
    void pass(std::vector<int>& passed) {
        for (const int sums : passed) ++tickets_[static_cast<size_t>(sums)];
        passed.clear();
    }
    bool done() const {
        return taken_ == sums_.items() &&
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
    Ordered ordered_;
    std::vector<uint32_t> tickets_;
    std::vector<Cta> ctas_;
    unsigned taken_ = 0;
};

}  // namespace colonnade::hopper
