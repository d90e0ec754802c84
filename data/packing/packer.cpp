#include "data/packing/packer.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "engine/device/error.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// Fisher-Yates, because std::shuffle differs between standard libraries.
template <typename T>
void shuffle(std::vector<T>& values, const Philox& random) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i, i)]);
}

/// The random stream of one shuffle; the tag separates it from the streams of weight initialisation.
Philox stream(uint64_t seed, int64_t epoch, uint64_t purpose) {
    constexpr uint64_t tag = uint64_t{0x7061636B} << 32;  // "pack"
    return {seed, tag + 2 * static_cast<uint64_t>(epoch) + purpose};
}

void check(std::span<const int64_t> lengths, const PackSettings& settings) {
    if (settings.packing_length < 1)
        fail(Exit::config, "packing_length is {}, expected at least 1", settings.packing_length);
    if (settings.window < 1) fail(Exit::config, "packing window is {}, expected at least 1 sample", settings.window);
    if (settings.min_shared < 1) fail(Exit::config, "min_shared is {}, expected at least 1 token", settings.min_shared);
    if (std::ssize(lengths) > INT32_MAX)
        fail(Exit::data, "{} samples are too many to pack, expected at most {}", lengths.size(), INT32_MAX);
    const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
    if (longest <= settings.packing_length) return;
    const auto too_long =
        std::count_if(lengths.begin(), lengths.end(), [&](int64_t n) { return n > settings.packing_length; });
    fail(Exit::config,
         "{} of {} samples are longer than packing_length {} (the longest has {} tokens): raise packing_length, or "
         "lower max_length to drop or truncate them",
         too_long, lengths.size(), settings.packing_length, longest);
}

void check(const PrefixOrder& prefixes, std::span<const int64_t> lengths) {
    const auto& [order, lcp] = prefixes;
    if (order.size() != lengths.size() || lcp.size() != lengths.size())
        fail(Exit::internal, "packer: a prefix order of {} sequences and {} common parts for {} samples", order.size(),
             lcp.size(), lengths.size());
    std::vector<bool> seen(lengths.size());
    int64_t before = 0;
    for (size_t k = 0; k < order.size(); ++k) {
        const auto sample = static_cast<size_t>(order[k]);  // a negative number is too large
        if (sample >= lengths.size() || seen[sample])
            fail(Exit::internal, "packer: place {} of the prefix order is sample {}, expected each of {} once", k,
                 order[k], lengths.size());
        seen[sample] = true;
        if (lcp[k] < 0 || lcp[k] > std::min(before, lengths[sample]))
            fail(Exit::internal, "packer: samples of {} and {} tokens have {} in common", before, lengths[sample],
                 lcp[k]);
        before = lengths[sample];
    }
}

/// Units that are in one row: a list through Bins::next_.
struct Part {
    int64_t tokens = 0;       // computed, the path from the root included
    int64_t represented = 0;  // sum of lengths
    int32_t samples = 0;
    int32_t key = 0;  // place of the first unit among all shuffled units
    int32_t first = 0, last = 0;
};
using Parts = std::vector<Part>;

bool by_key(const Part& a, const Part& b) {
    return a.key < b.key;
}

/// Puts the units of one epoch into rows.
class Bins {
  public:
    Bins(const PackUnits& units, const PackSettings& settings)
        : units_(units), settings_(settings), next_(units.units.size(), -1) {}

    Parts best_fit(Parts parts) {
        by_stem_.resize(units_.stems.size());
        if (by_stem_.size() == 1)
            by_stem_[0] = std::move(parts);
        else
            for (const Part& part : parts)
                by_stem_[static_cast<size_t>(units_.units[static_cast<size_t>(part.first)].stem)].push_back(part);
        for (size_t stem = by_stem_.size(); stem-- > 0;) pack(stem);
        return std::move(rows_);
    }

    /// Next fit, which keeps the order. A row has room for its samples even if they have nothing in common.
    Parts in_sequence(Parts parts) {
        for (const Part& part : parts) {
            if (rows_.empty() || rows_.back().tokens + part.tokens > settings_.packing_length)
                rows_.push_back(part);
            else
                join(rows_.back(), part, 0);
        }
        return std::move(rows_);
    }

    /// The unit behind this one in its row; -1 at the end.
    int32_t next(int32_t unit) const { return next_[static_cast<size_t>(unit)]; }

  private:
    /// The two have `depth` tokens in common.
    void join(Part& row, const Part& part, int64_t depth) {
        next_[static_cast<size_t>(row.last)] = part.first;
        row.last = part.last;
        row.tokens += part.tokens - depth;
        row.represented += part.represented;
        row.samples += part.samples;
    }

    bool open(const Part& part) const {
        return part.represented / settings_.most_represented < settings_.packing_length;
    }

    /// Best-fit decreasing: the part of most tokens first, each into the fullest row with enough room, ties in order.
    Parts fit(Parts parts, int64_t depth) {
        std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.tokens > b.tokens; });
        Parts rows;
        std::set<std::pair<int64_t, size_t>> room;  // (tokens left, row)
        for (const Part& part : parts) {
            const auto best = open(part) ? room.lower_bound({part.tokens - depth, 0}) : room.end();
            const size_t row = best != room.end() ? best->second : rows.size();
            if (best != room.end()) {
                room.erase(best);
                join(rows[row], part, depth);
            } else {
                rows.push_back(part);
            }
            if (open(rows[row])) room.insert({settings_.packing_length - rows[row].tokens, row});
        }
        return rows;
    }

    /// Window by window. A stem takes its emptiest row into its next window, and from the last one to the stem above it.
    void pack(size_t stem) {
        Parts parts = std::move(by_stem_[stem]);
        if (by_stem_.size() > 1) std::sort(parts.begin(), parts.end(), by_key);
        const auto [parent, depth] = units_.stems[stem];
        Parts window;
        int64_t samples = 0;
        for (size_t i = 0; i < parts.size(); ++i) {
            window.push_back(parts[i]);
            samples += parts[i].samples;
            if (samples < settings_.window && i + 1 < parts.size()) continue;
            samples = 0;
            Parts rows = fit(std::move(window), depth);
            window.clear();
            if (stem > 0) {
                const auto emptiest = std::min_element(
                    rows.begin(), rows.end(), [](const Part& a, const Part& b) { return a.tokens < b.tokens; });
                window.push_back(*emptiest);
                rows.erase(emptiest);
            }
            Parts& to = stem > 0 ? by_stem_[0] : rows_;
            to.insert(to.end(), rows.begin(), rows.end());
        }
        if (stem > 0) by_stem_[static_cast<size_t>(parent)].push_back(window.front());
    }

    const PackUnits& units_;
    const PackSettings& settings_;
    std::vector<int32_t> next_;
    std::vector<Parts> by_stem_;  // the parts to pack behind each stem
    Parts rows_;
};

/// The common part of the unit that was added last and any one before it.
class CommonPart {
  public:
    /// Units are added in walk order. This one has `lcp` tokens in common with the one before it.
    void add(int32_t unit, int32_t lcp) {
        while (!least_.empty() && least_.back().second >= lcp) least_.pop_back();
        least_.emplace_back(unit, lcp);
    }
    int32_t with(int32_t unit) const {
        return std::partition_point(least_.begin(), least_.end(), [&](const auto& e) { return e.first <= unit; })
            ->second;
    }

  private:
    // (unit, lcp): those that had less in common than any unit added behind them
    std::vector<std::pair<int32_t, int32_t>> least_;
};

}  // namespace

std::span<const int64_t> PackPlan::pack(int64_t p) const {
    if (p >= packs()) return {};
    const auto begin = static_cast<size_t>(begins[static_cast<size_t>(p)]),
               end = static_cast<size_t>(begins[static_cast<size_t>(p) + 1]);
    return std::span(samples).subspan(begin, end - begin);
}

double PackPlan::saved() const {
    return represented > 0 ? 1 - static_cast<double>(computed) / static_cast<double>(represented) : 0;
}

Packer::Packer(std::vector<int64_t> lengths, const PackSettings& settings, PrefixOrder prefixes)
    : settings_(settings),
      lengths_(std::move(lengths)),
      prefixes_(std::move(prefixes)),
      shares_(!prefixes_.order.empty()) {
    check(lengths_, settings_);
    if (shares_) {
        check(prefixes_, lengths_);
    } else {
        prefixes_ = {.order = std::vector<int32_t>(lengths_.size()), .lcp = std::vector<int32_t>(lengths_.size())};
        std::iota(prefixes_.order.begin(), prefixes_.order.end(), 0);
    }
    const bool together = settings_.strategy == PackStrategy::bfd;
    units_ = pack_units(lengths_, prefixes_,
                        {.tokens = settings_.packing_length,
                         .min_shared = together ? settings_.min_shared : UnitLimits::never,
                         .most_represented = settings_.most_represented});
}

/// Each unit alone. Its key is the number of its first sample, the order that shuffling begins with.
static Parts parts_of(const PackUnits& units, const PrefixOrder& prefixes, std::span<const int64_t> lengths) {
    Parts parts;
    parts.reserve(units.units.size());
    for (const auto& [first, end, stem] : units.units) {
        const auto unit = static_cast<int32_t>(parts.size());
        Part part{.tokens = prefixes.lcp[static_cast<size_t>(first)],
                  .samples = end - first,
                  .key = prefixes.order[static_cast<size_t>(first)],
                  .first = unit,
                  .last = unit};
        for (auto k = static_cast<size_t>(first); k < static_cast<size_t>(end); ++k) {
            const int64_t length = lengths[static_cast<size_t>(prefixes.order[k])];
            part.tokens += length - prefixes.lcp[k];
            part.represented += length;
        }
        parts.push_back(part);
    }
    return parts;
}

PackPlan Packer::plan(int64_t epoch) const {
    Parts parts = parts_of(units_, prefixes_, lengths_);
    if (shares_) std::sort(parts.begin(), parts.end(), by_key);
    if (settings_.shuffle) shuffle(parts, stream(settings_.seed, epoch, 0));
    for (size_t i = 0; i < parts.size(); ++i) parts[i].key = static_cast<int32_t>(i);

    Bins bins(units_, settings_);
    Parts rows;
    switch (settings_.strategy) {
        case PackStrategy::bfd:
            rows = bins.best_fit(std::move(parts));
            break;
        case PackStrategy::sequential:
            rows = bins.in_sequence(std::move(parts));
            break;
        case PackStrategy::none:
            rows = std::move(parts);
            break;
    }
    if (settings_.shuffle) shuffle(rows, stream(settings_.seed, epoch, 1));

    PackPlan plan;
    std::vector<int32_t> row_of(units_.units.size()), order;  // order: the units row by row, or as the walk goes
    order.reserve(units_.units.size());
    for (size_t r = 0; r < rows.size(); ++r) {
        plan.begins.push_back(plan.begins.back() + rows[r].samples);
        for (int32_t unit = rows[r].first; unit >= 0; unit = bins.next(unit)) {
            row_of[static_cast<size_t>(unit)] = static_cast<int32_t>(r);
            order.push_back(unit);
        }
    }
    if (shares_) std::iota(order.begin(), order.end(), 0);
    write(plan, order, row_of);
    return plan;
}

void Packer::write(PackPlan& plan, const std::vector<int32_t>& order, const std::vector<int32_t>& row_of) const {
    plan.samples.resize(lengths_.size());
    plan.shared.resize(lengths_.size());
    plan.tokens.resize(static_cast<size_t>(plan.packs()));
    std::vector<int64_t> places(plan.begins.begin(), plan.begins.end() - 1);  // of each row's next sample
    std::vector<int32_t> latest(places.size(), -1);                           // unit in each row
    CommonPart common;
    for (const int32_t unit : order) {
        const auto row = static_cast<size_t>(row_of[static_cast<size_t>(unit)]);
        const auto [first, end, stem] = units_.units[static_cast<size_t>(unit)];
        for (auto k = static_cast<size_t>(first); k < static_cast<size_t>(end); ++k) {
            int32_t shared = prefixes_.lcp[k];
            if (std::cmp_equal(k, first) && shares_) {
                common.add(unit, shared);
                shared = latest[row] < 0 ? 0 : common.with(latest[row]);
            }
            const int32_t sample = prefixes_.order[k];
            const auto place = static_cast<size_t>(places[row]++);
            plan.samples[place] = sample;
            plan.shared[place] = shared;
            plan.tokens[row] += lengths_[static_cast<size_t>(sample)] - shared;
            plan.represented += lengths_[static_cast<size_t>(sample)];
        }
        latest[row] = unit;
    }
    plan.computed = std::accumulate(plan.tokens.begin(), plan.tokens.end(), int64_t{0});
    if (plan.packs() > 0)
        plan.fill = static_cast<double>(plan.computed) /
                    (static_cast<double>(plan.packs()) * static_cast<double>(settings_.packing_length));
}

PackPlan plan_epoch(std::span<const int64_t> lengths, const PackSettings& settings, int64_t epoch) {
    return Packer({lengths.begin(), lengths.end()}, settings).plan(epoch);
}

}  // namespace colonnade
