#include "document_attention.h"

#include <cmath>

#include "attention/flashmask.h"
#include "engine/device/version.h"

static_assert(COLONNADE_VERSION_MAJOR == 0 && COLONNADE_VERSION_MINOR >= 1);

std::vector<float> document_attention(std::vector<float> q, std::vector<float> k, std::vector<float> v,
                                      const std::vector<int64_t>& ends) {
    using namespace colonnade;
    constexpr int64_t head_dim = 64;
    const int64_t length = ends.back();
    std::vector<float> out(q.size()), lse(static_cast<size_t>(length));
    const auto heads = [&](std::vector<float>& values) {
        return Tensor(values.data(), DType::f32, {1, length, 1, head_dim});
    };
    const Context ctx;
    const ColumnMask mask = causal_document_mask(length, ends);
    const TilePlan plan = make_tile_plan(ctx, {}, mask);
    flashmask_forward(ctx, {.out = heads(out),
                            .lse = Tensor(lse.data(), DType::f32, {1, 1, length}),
                            .q = heads(q),
                            .k = heads(k),
                            .v = heads(v),
                            .mask = mask,
                            .plan = plan,
                            .scale = 1 / std::sqrt(static_cast<double>(head_dim))});
    return out;
}
