#include "train/objectives/device_batch.h"

#include "engine/device/device_memory.h"

namespace colonnade {
namespace {

void check_ids(const char* what, const std::vector<int32_t>& ids, int64_t vocab) {
    for (size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= vocab)
            fail(Exit::data, "{} {}: token {} is outside the vocabulary [0, {})", what, i, ids[i], vocab);
}

/// Makes values available on the device: copies them on a GPU, sets `to` to a view of them on the CPU.
template <typename T>
void bring(const Context& ctx, Tensor& to, const std::vector<T>& values) {
    if (ctx.gpu)
        put(ctx, to, values);
    else
        to = Tensor(const_cast<T*>(values.data()), dtype_of<T>(), {std::ssize(values)});
}

}  // namespace

BatchShape BatchShape::of(const Batch& batch) {
    return {batch.packs, batch.length, std::ssize(batch.rows), std::ssize(batch.branch_table),
            std::ssize(batch.margins)};
}

BatchShape BatchShape::largest(int64_t packs, int64_t length) {
    const int64_t tokens = packs * length;
    return {packs, length, tokens, tokens, tokens};
}

DeviceBatch DeviceBatch::lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape, Answers answers) {
    const auto tensor = [&](DType dtype, std::initializer_list<int64_t> of) {
        return arena.tensor("batch", dtype, of);
    };
    DeviceBatch b;
    b.answers_ = answers;
    b.input.packs = shape.packs;
    b.input.length = shape.length;
    b.scales = tensor(DType::f64, {shape.targets});
    b.input.token_index = TokenIndex::lay_out(arena, "batch", shape.tokens());
    if (arena.device() == Device::cuda) {
        for (Tensor* t : {&b.input.tokens, &b.input.positions}) *t = tensor(DType::i32, {shape.tokens()});
        for (Tensor* t : {&b.rows, &b.targets, &b.branches}) *t = tensor(DType::i32, {shape.targets});
        b.weights = tensor(DType::f32, {shape.targets});
    }
    if (answers != Answers::none) {
        b.order = tensor(DType::i32, {shape.targets});
        b.begins = tensor(DType::i32, {shape.branches + 1});
        b.lengths = tensor(DType::f64, {shape.branches});
        b.pairs = tensor(DType::i32, {shape.samples, 2});
        b.reference = tensor(DType::f64, {shape.branches});
        b.last_rows = tensor(DType::i32, {shape.branches});
        b.sample_begins = tensor(DType::i32, {shape.samples + 1});
        b.margins = tensor(DType::f32, {shape.samples});
    }
    b.input.masks = AttentionMasks::lay_out(arena, config, shape.packs, shape.length);
    return b;
}

void DeviceBatch::fill(const Context& ctx, const ModelConfig& config, const Batch& batch, double total) {
    check_ids("position", batch.tokens, config.vocab_size);
    check_ids("target", batch.targets, config.vocab_size);
    fill_token_index(ctx, input.token_index, batch.tokens);
    bring(ctx, input.tokens, batch.tokens);
    bring(ctx, input.positions, batch.positions);
    fill_targets(ctx, batch, total);
    if (answers_ == Answers::pairs) fill_pairs(ctx, batch);
    if (answers_ == Answers::rankings) fill_rankings(ctx, batch);
    input.masks.fill(ctx, batch.mask, batch.positions);
}

void DeviceBatch::fill_targets(const Context& ctx, const Batch& batch, double total) {
    const size_t count = batch.targets.size();
    require(batch.rows.size() == count && batch.branches.size() == count && batch.weights.size() == count,
            "a batch of {} targets with {} rows, {} branches, {} weights", count, batch.rows.size(),
            batch.branches.size(), batch.weights.size());
    // A step without any weight has total 0: its gradient is exactly 0, not 0 / 0.
    const double scale = total > 0 ? 1 / total : 0;
    std::vector<double> scaled(count);
    for (size_t i = 0; i < count; ++i) scaled[i] = static_cast<double>(batch.weights[i]) * scale;
    put(ctx, scales, scaled);
    bring(ctx, rows, batch.rows);
    bring(ctx, targets, batch.targets);
    bring(ctx, branches, batch.branches);
    bring(ctx, weights, batch.weights);
}

void DeviceBatch::fill_pairs(const Context& ctx, const Batch& batch) const {
    const auto& table = batch.branch_table;
    std::vector<int32_t> branch_begins(table.size() + 1), by_branch(batch.branches.size()), both;
    for (const int32_t branch : batch.branches) ++branch_begins[static_cast<size_t>(branch) + 1];
    for (size_t b = 0; b < table.size(); ++b) branch_begins[b + 1] += branch_begins[b];
    std::vector<int32_t> next(branch_begins.begin(), branch_begins.end() - 1);
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
            fail(Exit::data, "a batch of {} samples has {} answers: preferences need two answers per sample",
                 batch.margins.size(), table.size());
        if (!(sums[b] > 0)) fail(Exit::data, "an answer of a preference pair has no token with a loss");
        both.push_back(static_cast<int32_t>(b));
    }
    put(ctx, order, by_branch);
    put(ctx, begins, branch_begins);
    put(ctx, lengths, sums);
    put(ctx, pairs, both);
    if (!batch.reference.empty()) put(ctx, reference, batch.reference);
}

void DeviceBatch::fill_rankings(const Context& ctx, const Batch& batch) const {
    std::vector<int32_t> last, begin_of_sample(batch.margins.size() + 1);
    for (const Branch& branch : batch.branch_table) {
        // Rows ascend, as the gradient of gather_rows needs them, unless a branch is empty.
        if (branch.last_row < 0 || (!last.empty() && branch.last_row <= last.back()))
            fail(Exit::data, "an answer of a ranking has no token");
        last.push_back(branch.last_row);
        ++begin_of_sample[static_cast<size_t>(branch.sample) + 1];
    }
    for (size_t s = 0; s + 1 < begin_of_sample.size(); ++s) begin_of_sample[s + 1] += begin_of_sample[s];
    put(ctx, last_rows, last);
    put(ctx, sample_begins, begin_of_sample);
    put(ctx, margins, batch.margins);
}

}  // namespace colonnade
