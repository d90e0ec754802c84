#include "layers/embedding_noise.h"

#include <cmath>

#include "engine/device/philox.h"
#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {

void add_embedding_noise(const Context& ctx, const EmbeddingNoise& args) {
    const ShapeCheck check(ctx, "add_embedding_noise", args.x.dtype);
    const int64_t tokens = args.x.size(0), hidden = args.x.size(1);
    check("x", args.x, {tokens, hidden});
    check("scales", args.scales, DType::f32, {tokens});
    check("streams", args.streams, DType::i64, {tokens});
    check("positions", args.positions, DType::i32, {tokens});
    const PhaseTimer timer(ctx, "embedding");
    if (ctx.device == Device::cuda) return cuda::add_embedding_noise(ctx, args);
    dispatch_float(args.x.dtype, [&]<typename T>() {
        const Rows<T> x{args.x.as<T>(), args.x.stride[0]};
        const int64_t blocks = embedding_noise_blocks(hidden);
#pragma omp parallel for schedule(static) if (tokens * hidden >= parallel_from)
        for (int64_t t = 0; t < tokens; ++t) {
            const Philox random{args.seed, static_cast<uint64_t>(args.streams.as<int64_t>()[t])};
            const auto first = static_cast<uint64_t>(args.positions.as<int32_t>()[t] * blocks);
            const T scale = static_cast<T>(args.scales.as<float>()[t]);
            for (int64_t b = 0; b < blocks; ++b) {
                const auto words = random.block(first + static_cast<uint64_t>(b));
                for (int64_t j = 4 * b; j < std::min(4 * b + 4, hidden); ++j) {
                    const float u = std::fma(static_cast<float>(words[static_cast<size_t>(j % 4)]), 0x1p-31f, -1.0f);
                    x[t][j] = std::fma(scale, static_cast<T>(u), x[t][j]);
                }
            }
        }
    });
}

}  // namespace colonnade
