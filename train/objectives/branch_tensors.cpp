#include "train/objectives/branch_tensors.h"

#include "engine/device/device_memory.h"

namespace colonnade {
BatchShape BatchShape::of(const Batch& batch) {
    return {batch.packs, batch.length, std::ssize(batch.rows), std::ssize(batch.branch_table),
            std::ssize(batch.margins)};
}

BatchShape BatchShape::largest(int64_t packs, int64_t length) {
    const int64_t tokens = packs * length;
    return {packs, length, tokens, tokens, tokens};
}

BranchTensors BranchTensors::lay_out(Arena& arena, const BatchShape& shape) {
    BranchTensors b;
    const auto tensor = [&](DType dtype, std::initializer_list<int64_t> of) {
        return arena.tensor("batch", dtype, of);
    };
    b.order = tensor(DType::i32, {shape.targets});
    b.begins = tensor(DType::i32, {shape.branches + 1});
    b.lengths = tensor(DType::f64, {shape.branches});
    b.pairs = tensor(DType::i32, {shape.samples, 2});
    b.reference = tensor(DType::f64, {shape.branches});
    b.last_rows = tensor(DType::i32, {shape.branches});
    b.sample_begins = tensor(DType::i32, {shape.samples + 1});
    b.margins = tensor(DType::f32, {shape.samples});
    return b;
}

void BranchTensors::fill_pairs(const Context& ctx, const Batch& batch) const {
    const auto& table = batch.branch_table;
    std::vector<int32_t> of_branch(table.size() + 1), by_branch(batch.branches.size()), of_pairs;
    for (const int32_t branch : batch.branches) ++of_branch[static_cast<size_t>(branch) + 1];
    for (size_t b = 0; b < table.size(); ++b) of_branch[b + 1] += of_branch[b];
    std::vector<int32_t> next(of_branch.begin(), of_branch.end() - 1);
    std::vector<double> sums(table.size());
    for (size_t i = 0; i < batch.branches.size(); ++i) {
        const auto b = static_cast<size_t>(batch.branches[i]);
        by_branch[static_cast<size_t>(next[b]++)] = static_cast<int32_t>(i);
        sums[b] += static_cast<double>(batch.weights[i]);
    }
    for (size_t b = 0; b < table.size(); ++b) {
        const bool in_pair =
            table[b].sample == static_cast<int32_t>(b / 2) && table[b].rank == static_cast<int32_t>(b % 2);
        if (!in_pair || table.size() != 2 * batch.margins.size())
            fail(Exit::data, "a batch of {} samples has {} answers: preferences are learned from two answers a sample",
                 batch.margins.size(), table.size());
        if (!(sums[b] > 0)) fail(Exit::data, "an answer of a preference pair has no token that is learned");
        of_pairs.push_back(static_cast<int32_t>(b));
    }
    put(ctx, order, by_branch);
    put(ctx, begins, of_branch);
    put(ctx, lengths, sums);
    put(ctx, pairs, of_pairs);
}

void BranchTensors::fill_reference(const Context& ctx, const Batch& batch) const {
    put(ctx, reference, batch.reference);
}

void BranchTensors::fill_rankings(const Context& ctx, const Batch& batch) const {
    std::vector<int32_t> rows, of_sample(batch.margins.size() + 1);
    for (const Branch& branch : batch.branch_table) {
        // Rows ascend, as the gradient of gather_rows wants them, unless a branch is empty.
        if (branch.last_row < 0 || (!rows.empty() && branch.last_row <= rows.back()))
            fail(Exit::data, "an answer of a ranking has no token");
        rows.push_back(branch.last_row);
        ++of_sample[static_cast<size_t>(branch.sample) + 1];
    }
    for (size_t s = 0; s + 1 < of_sample.size(); ++s) of_sample[s + 1] += of_sample[s];
    put(ctx, last_rows, rows);
    put(ctx, sample_begins, of_sample);
    put(ctx, margins, batch.margins);
}

}  // namespace colonnade
