#include "train/step/embedding_rows.h"

#include "engine/device/device_memory.h"

namespace colonnade {

EmbeddingRows EmbeddingRows::lay_out(Arena& arena, int64_t tokens, int64_t hidden, DType dtype) {
    EmbeddingRows rows;
    int64_t used = 0;
    const auto part = [&](DType type, int64_t elements) {
        const int64_t begin = used;
        used += (elements * static_cast<int64_t>(bytes_of(type)) + 15) / 16 * 16;
        return begin;
    };
    const int64_t dout = part(dtype, tokens * hidden), order = part(DType::i32, tokens),
                  begins = part(DType::i32, tokens + 1), ids = part(DType::i32, tokens);
    rows.message = arena.tensor("gradient sync", DType::u8, {used});
    if (arena.planning()) return rows;
    const auto view = [&](int64_t begin, DType type, std::initializer_list<int64_t> shape) {
        return Tensor(static_cast<char*>(rows.message.data) + begin, type, shape, arena.device());
    };
    rows.dout = view(dout, dtype, {tokens, hidden});
    rows.index = {.distinct = tokens,
                  .order = view(order, DType::i32, {tokens}),
                  .begins = view(begins, DType::i32, {tokens + 1}),
                  .ids = view(ids, DType::i32, {tokens})};
    return rows;
}

void EmbeddingRows::fill(const Context& ctx, const Tensor& from, const TokenIndex& of) const {
    if (from.empty()) return clear(ctx, index.begins);
    const auto take = [&](const Tensor& to, const Tensor& own) { copy(ctx, to.slice(0, 0, own.size(0)), own); };
    take(dout, from);
    take(index.order, of.order);
    take(index.begins, of.begins);
    take(index.ids, of.ids);
    const int64_t used = of.begins.size(0), room = index.begins.size(0);
    if (used < room) clear(ctx, index.begins.slice(0, used, room));
}

}  // namespace colonnade
