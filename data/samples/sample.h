#pragma once
// Sample: one row of a data set after tokenisation. It is a token tree of depth one: a stem that all branches share,
// then the branches one after the other.
//
//   SFT, pretraining   an empty stem and one branch
//   preference pair    the prompt as the stem; two branches, the chosen answer first
//   ranking            the prompt as the stem; one branch per answer, the best answer first
//
// Positions, masks and targets all derive from this one shape (data/packing/batch.h).

#include <cstdint>
#include <span>
#include <vector>

namespace colonnade {

struct Sample {
    std::vector<int32_t> tokens;         ///< stem, branch 0, branch 1, ...
    std::vector<float> weights;          ///< loss mask: weight of tokens[i] as a target; 0: not trained on
    std::vector<int32_t> branch_begins;  ///< index of each branch's first token, ascending; the stem is [0, begins[0])
    float margin = 0;  ///< of a pair: by how much the chosen answer should score above the rejected one

    int64_t length() const { return static_cast<int64_t>(tokens.size()); }
    int64_t stem() const { return branch_begins.empty() ? 0 : branch_begins.front(); }  ///< its number of tokens
    /// Index past the last token of branch `b`.
    int64_t branch_end(size_t b) const { return b + 1 < branch_begins.size() ? branch_begins[b + 1] : length(); }
};

/// Calls body(token, row, branch) for every target of a sample, in order of rows, then of branches: the hidden state of
/// `row` predicts `token`. All three are indices within the sample. Every token of a branch with a weight above 0 is a
/// target of the row before it; the first token of a branch is a target of the stem's last row. The first token of a
/// sample has no row before it and is never a target; neither are stem tokens.
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
    for (int32_t branch = 0; stem > 0 && branch < branches; ++branch)
        if (begin_of(branch) < begin_of(branch + 1)) visit(begin_of(branch), stem - 1, branch);
    for (int32_t branch = 0; branch < branches; ++branch)
        for (int32_t token = begin_of(branch) + 1; token < begin_of(branch + 1); ++token)
            visit(token, token - 1, branch);
}

/// Sum of the weights of a sample's targets.
double target_weight(std::span<const float> weights, std::span<const int32_t> branch_begins);

/// How much a sample with this many branches counts in losses that compare answers: 1 for two branches or more (a long
/// ranking counts as much as a pair), 0 if there is nothing to compare.
constexpr double pair_count(size_t branches) {
    return branches >= 2 ? 1 : 0;
}

/// Whether a column mask can hide, from every branch of a sample, the columns that are `window` or more positions
/// before a row (ColumnMask::with_sliding_window). With a stem of s tokens and window w, branch b of n_b tokens stops
/// seeing stem column j at its own token t_j = w - s + j. Columns with t_j <= 0 are hidden from all branches: one
/// range. For the others, each branch longer than t_j needs a range of its own; the last branch's range merges with
/// everything after the sample. A mask column has two ranges. So any pair fits, and a ranking fits if at most one of
/// the branches before the last is longer than the smallest t_j above 0.
bool window_fits_column_mask(std::span<const int32_t> branch_begins, int64_t window);

}  // namespace colonnade
