#include "data/packing/batch.h"

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

/// Writes tokens, positions and lts of `sample`. `begin`: its first index in the pack; `pack_row`: first flat row of
/// the pack.
void place(Batch& batch, const Sample& sample, int64_t pack_row, int64_t begin) {
    const int64_t end = begin + sample.length(), stem = sample.branch_begins.front();
    const auto flat = [&](auto& values) { return values.begin() + pack_row + begin; };
    std::copy(sample.tokens.begin(), sample.tokens.end(), flat(batch.tokens));
    for (int64_t i = 0; i < stem; ++i) flat(batch.positions)[i] = static_cast<int32_t>(i);
    std::fill_n(flat(batch.mask.lts), stem, static_cast<int32_t>(end));
    for (size_t branch = 0; branch < sample.branch_begins.size(); ++branch) {
        const int64_t first = sample.branch_begins[branch], last = sample.branch_end(branch);
        for (int64_t i = first; i < last; ++i) flat(batch.positions)[i] = static_cast<int32_t>(stem + i - first);
        std::fill_n(flat(batch.mask.lts) + first, last - first, static_cast<int32_t>(begin + last));
    }
}

/// Adds the branches, margin and pair count of `sample`, whose first token has flat row `begin`.
void list_branches(Batch& batch, const Sample& sample, int64_t begin) {
    const auto& begins = sample.branch_begins;
    for (size_t rank = 0; rank < begins.size(); ++rank) {
        const int64_t end = sample.branch_end(rank);
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
    batch.mask.lts.assign(batch.tokens.size(), 0);  // padding: hidden from all rows

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
                const int32_t of_batch = branches_before + branch;
                batch.branches.push_back(of_batch);
                ++batch.branch_table[static_cast<size_t>(of_batch)].tokens;
                batch.target_weight += static_cast<double>(sample->weights[i]);
            });
            begin += sample->length();
        }
    }
    return batch;
}

}  // namespace colonnade
