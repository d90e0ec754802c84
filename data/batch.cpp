#include "data/batch.h"

#include <algorithm>

namespace colonnade {
namespace {

void check(const Sample& sample) {
    const auto& begins = sample.branch_begins;
    require(!begins.empty() && begins.front() >= 0 && begins.back() <= sample.length() &&
                std::is_sorted(begins.begin(), begins.end()) && sample.weights.size() == sample.tokens.size(),
            "sample of {} tokens, {} weights: branches must be ascending and within it", sample.tokens.size(),
            sample.weights.size());
}

/// Calls body(token, row, branch) for every target of a sample, in order of rows, then branches. All indices are within
/// the sample.
template <typename Body>
void for_each_target(std::span<const float> weights, std::span<const int32_t> branch_begins, Body&& body) {
    const auto branches = static_cast<int32_t>(branch_begins.size());
    const auto begin_of = [&](int32_t branch) {
        return branch < branches ? branch_begins[static_cast<size_t>(branch)] : static_cast<int32_t>(weights.size());
    };
    const auto visit = [&](int32_t token, int32_t row, int32_t branch) {
        if (weights[static_cast<size_t>(token)] > 0) body(token, row, branch);
    };
    const int32_t stem = begin_of(0);
    for (int32_t branch = 0; stem > 0 && branch < branches;
         ++branch) {  // every branch's first token follows the last stem token
        if (begin_of(branch) < begin_of(branch + 1)) visit(begin_of(branch), stem - 1, branch);
    }
    for (int32_t branch = 0; branch < branches; ++branch) {
        for (int32_t token = begin_of(branch) + 1; token < begin_of(branch + 1); ++token)
            visit(token, token - 1, branch);
    }
}

/// Writes tokens, positions and lts of `sample`, which begins at `begin` in its pack, whose first flat row is
/// `pack_row`.
void place(Batch& batch, const Sample& sample, int64_t pack_row, int64_t begin) {
    const int64_t end = begin + sample.length(), stem = sample.branch_begins.front();
    const auto flat = [&](auto& values) { return values.begin() + pack_row + begin; };
    std::copy(sample.tokens.begin(), sample.tokens.end(), flat(batch.tokens));
    for (int64_t i = 0; i < stem; ++i) flat(batch.positions)[i] = static_cast<int32_t>(i);
    std::fill_n(flat(batch.mask.lts), stem, static_cast<int32_t>(end));
    for (size_t branch = 0; branch < sample.branch_begins.size(); ++branch) {
        const int64_t first = sample.branch_begins[branch];
        const int64_t last =
            branch + 1 < sample.branch_begins.size() ? sample.branch_begins[branch + 1] : sample.length();
        for (int64_t i = first; i < last; ++i) flat(batch.positions)[i] = static_cast<int32_t>(stem + i - first);
        std::fill_n(flat(batch.mask.lts) + first, last - first, static_cast<int32_t>(begin + last));
    }
}

/// Adds the branches of `sample`, whose first token has flat row `begin`, to the table, its margin and what it counts.
void list_branches(Batch& batch, const Sample& sample, int64_t begin) {
    const auto& begins = sample.branch_begins;
    for (size_t rank = 0; rank < begins.size(); ++rank) {
        const int64_t end = rank + 1 < begins.size() ? begins[rank + 1] : sample.length();
        const int64_t last = (begins[rank] < end ? end : begins.front()) - 1;
        batch.branch_table.push_back({.sample = static_cast<int32_t>(batch.margins.size()),
                                      .rank = static_cast<int32_t>(rank),
                                      .last_row = static_cast<int32_t>(last < 0 ? -1 : begin + last),
                                      .tokens = 0});
    }
    batch.margins.push_back(sample.margin);
    batch.pairs += pair_count(begins.size());
}

}  // namespace

Batch make_batch(const std::vector<std::vector<const Sample*>>& packs, int64_t align) {
    Batch batch;
    batch.packs = static_cast<int64_t>(packs.size());
    int64_t longest = 1;
    for (const auto& pack : packs) {
        int64_t tokens = 0;
        for (const Sample* sample : pack) {
            check(*sample);
            tokens += sample->length();
        }
        longest = std::max(longest, tokens);
        batch.real_tokens += tokens;
        batch.samples += static_cast<int64_t>(pack.size());
    }
    batch.length = (longest + align - 1) / align * align;
    require(batch.tokens_total() <= INT32_MAX, "a batch of {} x {} tokens has rows beyond 32 bits", batch.packs,
            batch.length);

    batch.tokens.assign(static_cast<size_t>(batch.tokens_total()), 0);
    batch.positions.assign(batch.tokens.size(), 0);
    batch.mask.vectors = MaskVectors::lts;
    batch.mask.batch = batch.packs;
    batch.mask.rows = batch.mask.columns = batch.length;
    batch.mask.lts.assign(batch.tokens.size(), 0);  // padding: hidden from row 0 on

    for (size_t p = 0; p < packs.size(); ++p) {
        const int64_t pack_row = static_cast<int64_t>(p) * batch.length;
        int64_t begin = 0;
        for (const Sample* sample : packs[p]) {
            place(batch, *sample, pack_row, begin);
            const auto branches_before = static_cast<int32_t>(batch.branch_table.size());
            list_branches(batch, *sample, pack_row + begin);
            for_each_target(sample->weights, sample->branch_begins, [&](int32_t token, int32_t row, int32_t branch) {
                const auto i = static_cast<size_t>(token);
                batch.rows.push_back(static_cast<int32_t>(pack_row + begin + row));
                batch.targets.push_back(sample->tokens[i]);
                batch.weights.push_back(sample->weights[i]);
                batch.branches.push_back(branches_before + branch);
                ++batch.branch_table[static_cast<size_t>(branches_before + branch)].tokens;
                batch.target_weight += static_cast<double>(sample->weights[i]);
            });
            begin += sample->length();
        }
    }
    return batch;
}

bool window_can_be_said(std::span<const int32_t> branch_begins, int64_t window) {
    const int64_t smallest = std::max<int64_t>(window - branch_begins.front(), 1);
    if (smallest >= window) return true;  // no column has a t_j above 0 below its window
    int64_t longer = 0;
    for (size_t b = 0; b + 1 < branch_begins.size(); ++b) longer += branch_begins[b + 1] - branch_begins[b] > smallest;
    return longer <= 1;
}

double target_weight(std::span<const float> weights, std::span<const int32_t> branch_begins) {
    double sum = 0;
    for_each_target(weights, branch_begins, [&](int32_t token, int32_t, int32_t) {
        sum += static_cast<double>(weights[static_cast<size_t>(token)]);
    });
    return sum;
}

}  // namespace colonnade
