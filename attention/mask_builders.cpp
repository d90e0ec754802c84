#include <numeric>

#include "attention/mask.h"
#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// A mask of n x n that hides nothing, or the future if causal, with its vectors filled with their defaults.
ColumnMask square(int64_t n, bool causal, MaskVectors vectors) {
    if (n < 0 || n > ColumnMask::max_length)
        fail(Exit::data, "a mask of length {}: expected 0..{}", n, ColumnMask::max_length);
    ColumnMask m{.causal = causal, .vectors = vectors, .rows = n, .columns = n};
    const auto size = static_cast<size_t>(n);
    const auto end = static_cast<int32_t>(n);
    const bool all = vectors == MaskVectors::all;
    if (vectors != MaskVectors::none) m.lts.assign(size, end);
    if (all || vectors == MaskVectors::lts_lte) m.lte.assign(size, end);
    if (all) m.uts.assign(size, 0);
    if (all || vectors == MaskVectors::lts_ute) m.ute.assign(size, 0);
    return m;
}

int32_t clip(int64_t row, int64_t n) {
    return static_cast<int32_t>(std::clamp<int64_t>(row, 0, n));
}

struct Span {
    int64_t begin, end;
};

void set(std::vector<int32_t>& vector, Span columns, int64_t value) {
    std::fill(vector.begin() + columns.begin, vector.begin() + columns.end, static_cast<int32_t>(value));
}

/// The documents that `ends` describes.
std::vector<Span> documents(int64_t n, const std::vector<int64_t>& ends) {
    std::vector<Span> spans;
    int64_t begin = 0;
    for (const int64_t end : ends) {
        if (end < begin || end > n)
            fail(Exit::data, "document {} of a mask of length {} ends at {}, expected {}..{}", spans.size(), n, end,
                 begin, n);
        spans.push_back({begin, end});
        begin = end;
    }
    return spans;
}

Span padding(int64_t n, const std::vector<Span>& docs) {
    return {docs.empty() ? 0 : docs.back().end, n};
}

void check_window(int64_t left, int64_t right) {
    if (left < 0 || right < 0)
        fail(Exit::config, "a window of {} keys back and {} ahead: expected no negative number", left, right);
}

}  // namespace

ColumnMask full_mask(int64_t rows, int64_t columns) {
    ColumnMask m{.causal = false, .rows = rows, .columns = columns};
    m.validate();
    return m;
}

ColumnMask causal_mask(int64_t rows, int64_t columns) {
    ColumnMask m{.rows = rows, .columns = columns};
    m.validate();
    return m;
}

ColumnMask sliding_window_mask(int64_t n, int64_t window) {
    return causal_mask(n, n).with_sliding_window(window);
}

ColumnMask bidirectional_window_mask(int64_t n, int64_t left, int64_t right) {
    check_window(left, right);
    left = std::min(left, n), right = std::min(right, n);
    ColumnMask m = square(n, false, MaskVectors::lts_ute);
    for (int64_t j = 0; j < n; ++j) {
        m.lts[static_cast<size_t>(j)] = clip(j + left + 1, n);
        m.ute[static_cast<size_t>(j)] = clip(j - right, n);
    }
    return m;
}

ColumnMask causal_document_mask(int64_t n, const std::vector<int64_t>& ends) {
    ColumnMask m = square(n, true, MaskVectors::lts);
    const auto docs = documents(n, ends);
    for (const Span& doc : docs) set(m.lts, doc, doc.end);
    set(m.lts, padding(n, docs), 0);
    return m;
}

ColumnMask document_mask(int64_t n, const std::vector<int64_t>& ends) {
    ColumnMask m = square(n, false, MaskVectors::lts_ute);
    const auto docs = documents(n, ends);
    for (const Span& doc : docs) {
        set(m.lts, doc, doc.end);
        set(m.ute, doc, doc.begin);
    }
    set(m.lts, padding(n, docs), 0);
    return m;
}

ColumnMask share_question_mask(int64_t n, const std::vector<BranchedSample>& samples) {
    ColumnMask m = square(n, true, MaskVectors::lts);
    int64_t at = 0;
    const auto take = [&](int64_t length) {
        if (length < 0 || length > n - at)
            fail(Exit::data, "a stem or branch of length {} at {} of a mask of length {}: expected 0..{}", length, at,
                 n, n - at);
        at += length;
        return Span{at - length, at};
    };
    for (const BranchedSample& sample : samples) {
        const Span stem = take(sample.stem);
        for (const int64_t length : sample.branches) {
            const Span branch = take(length);
            set(m.lts, branch, branch.end);
        }
        set(m.lts, stem, at);
    }
    set(m.lts, {at, n}, 0);
    return m;
}

ColumnMask tree_mask(int64_t n, const std::vector<WalkedSequence>& sequences) {
    ColumnMask m = square(n, true, MaskVectors::lts);
    std::vector<size_t> path;  // the columns of the current sequence
    int64_t next = 0;
    const auto keep = [&](int64_t length) {  // the subtrees of the other columns end here
        for (; std::ssize(path) > length; path.pop_back()) m.lts[path.back()] = static_cast<int32_t>(next);
    };
    for (size_t s = 0; s < sequences.size(); ++s) {
        const auto [shared, own] = sequences[s];
        if (shared < 0 || shared > std::ssize(path))
            fail(Exit::data, "sequence {} shares {} tokens with the one before it, expected 0..{}", s, shared,
                 path.size());
        if (own < 0 || own > n - next)
            fail(Exit::data, "sequence {} has {} tokens of its own at {} of a mask of length {}: expected 0..{}", s,
                 own, next, n, n - next);
        keep(shared);
        for (const int64_t end = next + own; next < end; ++next) path.push_back(static_cast<size_t>(next));
    }
    keep(0);
    set(m.lts, {next, n}, 0);
    return m;
}

std::vector<int32_t> tree_positions(int64_t n, const std::vector<WalkedSequence>& sequences) {
    std::vector<int32_t> positions;
    for (const auto& [shared, own] : sequences)
        for (int64_t i = 0; i < own; ++i) positions.push_back(static_cast<int32_t>(shared + i));
    require(std::ssize(positions) <= n, "sequences of {} tokens for {} positions", positions.size(), n);
    positions.resize(static_cast<size_t>(n));
    return positions;
}

ColumnMask global_sliding_window_mask(int64_t n, int64_t global_tokens, int64_t left, int64_t right) {
    check_window(left, right);
    if (global_tokens < 0) fail(Exit::config, "{} global tokens: expected 0 or more", global_tokens);
    left = std::min(left, n), right = std::min(right, n);
    ColumnMask m = square(n, false, MaskVectors::all);
    for (int64_t j = global_tokens; j < n; ++j) {
        const auto at = static_cast<size_t>(j);
        m.lts[at] = clip(j + left + 1, n);
        if (j - right <= global_tokens) continue;
        m.uts[at] = clip(global_tokens, n);
        m.ute[at] = clip(j - right, n);
    }
    return m;
}

ColumnMask causal_blockwise_mask(int64_t n, const std::vector<int64_t>& ends) {
    const auto blocks = documents(n, ends);
    const Span pad = padding(n, blocks);
    // For all other columns, padding rows below the last block are a second hidden range.
    ColumnMask m = square(n, true, pad.begin < pad.end ? MaskVectors::all : MaskVectors::lts_lte);
    auto& begin = m.vectors == MaskVectors::all ? m.uts : m.lts;
    auto& end = m.vectors == MaskVectors::all ? m.ute : m.lte;
    for (size_t b = 0; b + 1 < blocks.size(); ++b) {
        set(begin, blocks[b], blocks[b].end);
        set(end, blocks[b], blocks.back().begin);
    }
    if (m.vectors == MaskVectors::all) {
        set(m.lts, {0, pad.begin}, pad.begin);
        set(m.lts, pad, 0);
    }
    return m;
}

ColumnMask prefix_lm_causal_mask(int64_t n, int64_t prefix) {
    if (prefix < 0) fail(Exit::config, "a prefix of {} tokens: expected 0 or more", prefix);
    ColumnMask m = square(n, false, MaskVectors::lts_ute);
    for (int64_t j = prefix; j < n; ++j) m.ute[static_cast<size_t>(j)] = static_cast<int32_t>(j);
    return m;
}

ColumnMask prefix_lm_document_mask(int64_t n, const std::vector<int64_t>& ends, const std::vector<int64_t>& prefixes) {
    ColumnMask m = document_mask(n, ends);
    const auto docs = documents(n, ends);
    if (prefixes.size() != docs.size()) fail(Exit::data, "{} prefixes for {} documents", prefixes.size(), docs.size());
    for (size_t d = 0; d < docs.size(); ++d) {
        if (prefixes[d] < 0 || prefixes[d] > docs[d].end - docs[d].begin)
            fail(Exit::data, "the prefix of document {} is {}, expected 0..{}", d, prefixes[d],
                 docs[d].end - docs[d].begin);
        for (int64_t j = docs[d].begin + prefixes[d]; j < docs[d].end; ++j)
            m.ute[static_cast<size_t>(j)] = static_cast<int32_t>(j);
    }
    return m;
}

ColumnMask qk_sparse_mask(int64_t n, const std::vector<ColumnRun>& runs) {
    ColumnMask m = square(n, true, MaskVectors::lts_lte);
    int64_t free = 0;
    for (const ColumnRun& run : runs) {
        if (run.begin < free || run.length < 0 || run.length > n - run.begin)
            fail(Exit::data,
                 "run of length {} at {} of a mask of length {}: expected to begin at {} or later and to end within",
                 run.length, run.begin, n, free);
        free = run.begin + run.length;
        for (int64_t j = run.begin; j < free; ++j) {
            m.lts[static_cast<size_t>(j)] = static_cast<int32_t>(j);
            m.lte[static_cast<size_t>(j)] = static_cast<int32_t>(free);
        }
    }
    return m;
}

ColumnMask hash_sparse_mask(int64_t n, const std::vector<int32_t>& first_row, const std::vector<int32_t>& end_row) {
    ColumnMask m = square(n, false, MaskVectors::lts_ute);
    m.ute = first_row;
    m.lts = end_row;
    m.validate();
    return m;
}

ColumnMask random_eviction_mask(int64_t n, int64_t heads, int64_t first_evicting_row, uint64_t seed) {
    if (heads < 1 || first_evicting_row < 0)
        fail(Exit::config, "random eviction for {} heads from row {}: expected at least 1 head and row 0", heads,
             first_evicting_row);
    ColumnMask m = square(n, true, MaskVectors::lts);
    m.heads = heads;
    m.lts.assign(static_cast<size_t>(heads * n), static_cast<int32_t>(n));
    for (int64_t h = 0; h < heads; ++h) {
        const Philox random{seed, static_cast<uint64_t>(h)};
        std::vector<int64_t> cached(static_cast<size_t>(std::min(first_evicting_row, n)));
        std::iota(cached.begin(), cached.end(), 0);
        for (int64_t row = first_evicting_row; row < n; ++row) {
            if (row > first_evicting_row) cached.push_back(row - 1);
            if (cached.empty()) continue;
            const auto evicted = random.below(static_cast<uint64_t>(row), cached.size());
            m.lts[static_cast<size_t>(h * n + cached[evicted])] = static_cast<int32_t>(row);
            cached[evicted] = cached.back();
            cached.pop_back();
        }
    }
    return m;
}

}  // namespace colonnade
