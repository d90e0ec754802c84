#include "train/objectives/batch_tensors.h"

namespace colonnade {
namespace {

void check_ids(const char* what, const std::vector<int32_t>& ids, int64_t vocab) {
    for (size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= vocab)
            fail(Exit::data, "{} {}: token {} is outside the vocabulary [0, {})", what, i, ids[i], vocab);
}

}  // namespace

BatchTensors BatchTensors::lay_out(Arena& arena, int64_t tokens, int64_t targets) {
    BatchTensors b;
    b.scales = arena.tensor("batch", DType::f64, {targets});
    b.token_index = TokenIndex::lay_out(arena, "batch", tokens);
    if (arena.device() == Device::cpu) return b;
    for (Tensor* t : {&b.tokens, &b.positions}) *t = arena.tensor("batch", DType::i32, {tokens});
    for (Tensor* t : {&b.rows, &b.targets, &b.branches}) *t = arena.tensor("batch", DType::i32, {targets});
    b.weights = arena.tensor("batch", DType::f32, {targets});
    return b;
}

void BatchTensors::fill(const Context& ctx, const Batch& batch, double total_weight, int64_t vocab) {
    check_ids("position", batch.tokens, vocab);
    check_ids("target", batch.targets, vocab);
    const size_t targets_count = batch.targets.size();
    require(batch.rows.size() == targets_count && batch.branches.size() == targets_count &&
                batch.weights.size() == targets_count,
            "a batch of {} targets with {} rows, {} branches, {} weights", targets_count, batch.rows.size(),
            batch.branches.size(), batch.weights.size());
    // A step in which nothing is learned has total weight 0: its gradient is exactly 0, not 0 / 0.
    const double scale = total_weight > 0 ? 1 / total_weight : 0;
    std::vector<double> scaled(batch.weights.size());
    for (size_t i = 0; i < scaled.size(); ++i) scaled[i] = static_cast<double>(batch.weights[i]) * scale;
    fill_token_index(ctx, token_index, batch.tokens);
    if (ctx.device == Device::cpu) {
        std::ranges::copy(scaled, scales.as<double>());
        tokens = view_of(batch.tokens);
        positions = view_of(batch.positions);
        rows = view_of(batch.rows);
        targets = view_of(batch.targets);
        branches = view_of(batch.branches);
        weights = view_of(batch.weights);
        return;
    }
    ctx.gpu->upload(scales, scaled.data());
    ctx.gpu->upload(tokens, batch.tokens.data());
    ctx.gpu->upload(positions, batch.positions.data());
    ctx.gpu->upload(rows, batch.rows.data());
    ctx.gpu->upload(targets, batch.targets.data());
    ctx.gpu->upload(branches, batch.branches.data());
    ctx.gpu->upload(weights, batch.weights.data());
}

}  // namespace colonnade
