#include "data/samples/prefix_order.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <exception>
#include <tuple>

#include "engine/device/error.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// Groups of this many sequences are compared and sorted by all threads together, smaller ones by one thread each.
constexpr int64_t large_group = 8192;
constexpr int64_t radix_from = 2048;  // sequences; fewer are sorted by std::sort, which is faster then
constexpr int radix_bits = 11;
constexpr int64_t radix_buckets = int64_t{1} << radix_bits;
constexpr int64_t longest_sequence = (int64_t{1} << 30) - 1;  // what Entry::path can say

/// How a sequence leaves the path of its group's pivot. Sorting by (path, token, sequence) sorts a group.
struct Entry {
    uint32_t path;
    uint32_t token;
    int32_t sequence;

    // Sequences that are smaller than the pivot: the sooner they part the smaller they are, and those that end at a
    // depth come before those that go on from there. Greater ones: the later they part the smaller they are.
    static constexpr uint32_t equal = uint32_t{1} << 31;
    static uint32_t ends(int64_t depth) { return static_cast<uint32_t>(2 * depth); }
    static uint32_t smaller(int64_t depth) { return static_cast<uint32_t>(2 * depth + 1); }
    static uint32_t greater(int64_t depth) { return ~static_cast<uint32_t>(depth); }

    /// Tokens in common with a pivot of `length` tokens.
    int64_t depth(int64_t length) const { return path < equal ? path / 2 : path == equal ? length : ~path; }
    /// Whether it is known to the last token.
    bool settled() const { return path == equal || (path < equal && path % 2 == 0); }

    uint64_t key() const { return uint64_t{path} << 32 | token; }
    bool operator<(const Entry& other) const {
        return std::tie(path, token, sequence) < std::tie(other.path, other.token, other.sequence);
    }
};

/// Entries [begin, end) that agree in their first `depth` tokens, in order of their numbers.
struct Group {
    int32_t begin, end, depth;

    int64_t size() const { return end - begin; }
};

/// Number of equal tokens at the beginning of a and b, which have `n` tokens.
int64_t common_prefix(const int32_t* a, const int32_t* b, int64_t n) {
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        uint64_t x, y;  // NOLINT(cppcoreguidelines-init-variables)
        std::memcpy(&x, a + i, sizeof x);
        std::memcpy(&y, b + i, sizeof y);
        if (x != y) return i + std::countr_zero(x ^ y) / 32;
    }
    return i < n && a[i] == b[i] ? i + 1 : i;
}

class Sorter {
  public:
    explicit Sorter(const TokenSequences& sequences)
        : sequences_(sequences), entries_(sequences.begins.size()), lcp_(sequences.begins.size(), 0) {
        if (std::ssize(entries_) >= radix_from) spare_.resize(entries_.size());
        for (size_t i = 0; i < entries_.size(); ++i) entries_[i].sequence = static_cast<int32_t>(i);
    }

    PrefixOrder run() {
        std::deque<Group> large, small;  // vectors take up to three times the memory while they grow
        const auto add = [&](const Group& group) { (group.size() < large_group ? small : large).push_back(group); };
        if (entries_.size() > 1) add({0, static_cast<int32_t>(entries_.size()), 0});
        while (!large.empty()) {
            const Group group = large.back();
            large.pop_back();
            split_together(group, add);
        }
        finish(small);
        std::vector<Entry>().swap(spare_);  // gives its memory back
        std::vector<int32_t> order(entries_.size());
        std::transform(entries_.begin(), entries_.end(), order.begin(), [](const Entry& e) { return e.sequence; });
        return {std::move(order), std::move(lcp_)};
    }

  private:
    /// Pseudo-random, so that no order of the rows makes the groups shrink slowly.
    int32_t draw_pivot(const Group& group) const {
        const Philox random{0, static_cast<uint64_t>(group.depth)};
        const auto drawn = random.below(static_cast<uint64_t>(group.begin), static_cast<uint64_t>(group.size()));
        return entries_[static_cast<size_t>(group.begin) + drawn].sequence;
    }

    /// Sets the keys of an entry of a group that agrees in `depth` tokens.
    void compare(Entry& entry, int32_t pivot, int64_t depth) const {
        entry.path = Entry::equal;
        entry.token = 0;
        if (entry.sequence == pivot) return;
        const int32_t *a = sequences_.data(entry.sequence), *b = sequences_.data(pivot);
        const int64_t length = sequences_.length(entry.sequence), pivot_length = sequences_.length(pivot);
        const int64_t both = std::min(length, pivot_length);
        const int64_t h = depth + common_prefix(a + depth, b + depth, both - depth);
        if (h < length) {
            entry.path = h < pivot_length && a[h] < b[h] ? Entry::smaller(h) : Entry::greater(h);
            entry.token = static_cast<uint32_t>(a[h]) ^ 0x80000000u;  // signed order as unsigned order
        } else if (h < pivot_length) {
            entry.path = Entry::ends(h);
        }
    }

    /// After the entries of a group are sorted: writes lcp between those that part here, and calls add(group) for each
    /// set of them that agree further.
    template <typename Add>
    void part(const Group& group, int32_t pivot, Add&& add) {
        const int64_t length = sequences_.length(pivot);
        for (int32_t begin = group.begin, end = begin; begin < group.end; begin = end) {
            const Entry& first = entries_[static_cast<size_t>(begin)];
            const auto depth = static_cast<int32_t>(first.depth(length));
            while (++end < group.end) {
                const Entry& entry = entries_[static_cast<size_t>(end)];
                if (entry.path != first.path || entry.token != first.token) break;
                if (first.settled()) lcp_[static_cast<size_t>(end)] = depth;
            }
            if (end < group.end) {
                const auto next = static_cast<int32_t>(entries_[static_cast<size_t>(end)].depth(length));
                lcp_[static_cast<size_t>(end)] = std::min(depth, next);
            }
            if (!first.settled() && end - begin > 1) add(Group{begin, end, depth + 1});
        }
    }

    /// Compares entries [begin, end). Prefetching makes the whole sort 1.2 to 1.5 times as fast on short sequences.
    void compare_range(int64_t begin, int64_t end, int32_t pivot, int64_t depth) {
        constexpr int64_t ahead = 8;
        for (int64_t i = begin; i < end; ++i) {
            const Entry* const entry = &entries_[static_cast<size_t>(i)];
            if (i + 2 * ahead < end)
                __builtin_prefetch(&sequences_.begins[static_cast<size_t>(entry[2 * ahead].sequence)]);
            if (i + ahead < end) __builtin_prefetch(sequences_.data(entry[ahead].sequence) + depth);
            compare(entries_[static_cast<size_t>(i)], pivot, depth);
        }
    }

    /// Sorts the entries of a group, which are in order of their numbers, by one digit after the other in which keys
    /// differ, the lowest first. Each pass keeps the order of equal digits, also between the pieces that threads take.
    /// The whole sort is 1.2 to 2 times as fast as with std::sort on short sequences.
    void radix_sort(const Group& group, int64_t pieces) {
        Entry *from = entries_.data() + group.begin, *to = spare_.data() + group.begin;
        const int64_t n = group.size();
        const auto piece = [&](int64_t p) { return std::span(from + n * p / pieces, from + n * (p + 1) / pieces); };
        uint64_t differ = 0;  // bits of the keys
#pragma omp parallel for schedule(static) reduction(| : differ) if (pieces > 1)
        for (int64_t i = 1; i < n; ++i) differ |= from[0].key() ^ from[i].key();
        std::vector<int32_t> places(static_cast<size_t>(pieces * radix_buckets));
        while (differ != 0) {
            const int shift = std::countr_zero(differ);
            const auto place = [&](int64_t p, const Entry& e) -> int32_t& {
                const auto digit = static_cast<int64_t>(e.key() >> shift) & (radix_buckets - 1);
                return places[static_cast<size_t>(p * radix_buckets + digit)];
            };
            std::fill(places.begin(), places.end(), 0);
#pragma omp parallel for schedule(static, 1) if (pieces > 1)
            for (int64_t p = 0; p < pieces; ++p)
                for (const Entry& e : piece(p)) ++place(p, e);
            int32_t sum = 0;  // counts become places
            for (int64_t digit = 0; digit < radix_buckets; ++digit)
                for (int64_t p = 0; p < pieces; ++p) {
                    int32_t& count = places[static_cast<size_t>(p * radix_buckets + digit)];
                    const int32_t first = sum;
                    sum += count;
                    count = first;
                }
#pragma omp parallel for schedule(static, 1) if (pieces > 1)
            for (int64_t p = 0; p < pieces; ++p)
                for (const Entry& e : piece(p)) to[place(p, e)++] = e;
            std::swap(from, to);
            differ &= ~(uint64_t{radix_buckets - 1} << shift);
        }
        if (from != entries_.data() + group.begin) std::copy(from, from + n, to);
    }

    template <typename Add>
    void split(const Group& group, Add&& add) {
        const int32_t pivot = draw_pivot(group);
        compare_range(group.begin, group.end, pivot, group.depth);
        if (group.size() < radix_from)
            std::sort(entries_.begin() + group.begin, entries_.begin() + group.end);
        else
            radix_sort(group, 1);
        part(group, pivot, add);
    }

    /// The same on all threads.
    template <typename Add>
    void split_together(const Group& group, Add&& add) {
        constexpr int64_t turn = 256;  // entries that a thread takes at a time
        const int32_t pivot = draw_pivot(group);
#pragma omp parallel for schedule(dynamic)
        for (int64_t begin = group.begin; begin < group.end; begin += turn)
            compare_range(begin, std::min<int64_t>(begin + turn, group.end), pivot, group.depth);
        radix_sort(group, std::clamp<int64_t>(group.size() / large_group, 1, omp_get_max_threads()));
        part(group, pivot, add);
    }

    /// Each group is one thread's until it is sorted.
    void finish(const std::deque<Group>& groups) {
        std::exception_ptr failure;  // an exception must not leave the parallel region
#pragma omp parallel
        {
            std::vector<Group> left;  // not recursion: a group can part as often as it has tokens
#pragma omp for schedule(dynamic, 4)
            for (size_t g = 0; g < groups.size(); ++g) {
                try {
                    left.assign(1, groups[g]);
                    while (!left.empty()) {
                        const Group group = left.back();
                        left.pop_back();
                        split(group, [&](const Group& smaller) { left.push_back(smaller); });
                    }
                } catch (...) {
#pragma omp critical
                    failure = std::current_exception();
                }
            }
        }
        if (failure) std::rethrow_exception(failure);
    }

    const TokenSequences& sequences_;
    std::vector<Entry> entries_, spare_;
    std::vector<int32_t> lcp_;
};

void check(const TokenSequences& sequences) {
    if (sequences.begins.size() != sequences.ends.size())
        fail(Exit::internal, "prefix order: {} begins, but {} ends", sequences.begins.size(), sequences.ends.size());
    if (sequences.size() > INT32_MAX)
        fail(Exit::data, "{} token sequences are too many to look for common prefixes, expected at most {}",
             sequences.size(), INT32_MAX);
    for (int64_t i = 0; i < sequences.size(); ++i) {
        const int64_t begin = sequences.begins[static_cast<size_t>(i)], end = sequences.ends[static_cast<size_t>(i)];
        if (begin < 0 || begin > end || end > std::ssize(sequences.tokens))
            fail(Exit::internal, "prefix order: sequence {} is [{}, {}) of {} tokens", i, begin, end,
                 sequences.tokens.size());
        if (end - begin > longest_sequence)
            fail(Exit::data,
                 "token sequence {} has {} tokens, which is too long to look for common prefixes: expected at most {}",
                 i, end - begin, longest_sequence);
    }
}

/// Keeps the stems that save most.
class LargestStems {
  public:
    explicit LargestStems(size_t count) : count_(count) {}

    void add(const SharedStem& stem) {
        if (stem.saved() == 0 || count_ == 0) return;
        stems_.push_back(stem);
        std::push_heap(stems_.begin(), stems_.end(), saves_more);
        if (stems_.size() <= count_) return;
        std::pop_heap(stems_.begin(), stems_.end(), saves_more);
        stems_.pop_back();
    }
    std::vector<SharedStem> sorted() && {
        std::sort_heap(stems_.begin(), stems_.end(), saves_more);
        return std::move(stems_);
    }

  private:
    static bool saves_more(const SharedStem& a, const SharedStem& b) {
        return std::tuple(-a.saved(), a.first, a.depth) < std::tuple(-b.saved(), b.first, b.depth);
    }

    size_t count_;
    std::vector<SharedStem> stems_;
};

/// The nodes of the trie with two sequences or more, each once all its sequences are seen.
std::vector<SharedStem> largest_stems(const std::vector<int32_t>& lcp, size_t count) {
    LargestStems largest(count);
    std::vector<SharedStem> path;  // nodes that are open, from the root down
    for (int64_t k = 1; k <= std::ssize(lcp); ++k) {
        const int64_t depth = k < std::ssize(lcp) ? lcp[static_cast<size_t>(k)] : 0;
        int64_t first = k - 1;
        while (!path.empty() && path.back().depth > depth) {
            SharedStem stem = path.back();
            path.pop_back();
            stem.own = stem.depth - std::max(depth, path.empty() ? 0 : path.back().depth);
            stem.sequences = k - stem.first;
            first = stem.first;
            largest.add(stem);
        }
        if (depth > (path.empty() ? 0 : path.back().depth)) path.push_back({.first = first, .depth = depth});
    }
    return std::move(largest).sorted();
}

}  // namespace

TokenSequences TokenSequences::end_to_end(std::span<const int32_t> tokens, std::span<const int64_t> offsets) {
    if (offsets.empty()) return {};
    return {tokens, offsets.first(offsets.size() - 1), offsets.subspan(1)};
}

PrefixOrder prefix_order(const TokenSequences& sequences) {
    check(sequences);
    return Sorter(sequences).run();
}

PrefixSharing prefix_sharing(const TokenSequences& sequences, const PrefixOrder& sorted,
                             const SharingRequest& request) {
    PrefixSharing sharing;
    int64_t shared = 0, before = 0;  // tokens in common with the sequence before, and its length
    for (size_t k = 0; k < sorted.order.size(); ++k) {
        const int64_t length = sequences.length(sorted.order[k]);
        shared = sorted.lcp[k];
        sharing.before += length;
        sharing.after += length - shared;
        if (shared == length)
            sharing.duplicates += shared;
        else if (shared == before)
            sharing.continuations += shared;
        else if (shared >= request.min_shared)
            sharing.stems += shared;
        else
            sharing.chance += shared;
        before = length;
    }
    sharing.largest = largest_stems(sorted.lcp, request.largest);
    return sharing;
}

}  // namespace colonnade
