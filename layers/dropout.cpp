#include "layers/dropout.h"

#include "engine/philox.h"
#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {

void dropout(const Context& ctx, const Dropout& args) {
    const ShapeCheck check(ctx, "dropout", args.in.dtype);
    const int64_t rows = args.in.size(0), width = args.in.size(1);
    check("in", args.in, {rows, width});
    check("out", args.out, {rows, width});
    require(args.mask.p >= 0 && args.mask.p < 1, "dropout of {}", args.mask.p);
    const PhaseTimer timer(ctx, "dropout");
    if (ctx.device == Device::cuda) return cuda::dropout(ctx, args);
    dispatch_float(args.in.dtype, [&]<typename T>() {
        const Rows<T> out{args.out.as<T>(), args.out.stride[0]};
        const Rows<const T> in{args.in.as<T>(), args.in.stride[0]};
        const Philox random{args.mask.seed, args.mask.stream};
        const uint32_t threshold = dropout_threshold(args.mask.p);
        const T scale = static_cast<T>(1 / (1 - args.mask.p));
        const int64_t blocks = dropout_blocks(width);
#pragma omp parallel for schedule(static) if (rows * width >= parallel_from)
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t block = 0; block < blocks; ++block) {
                const auto words = random.block(static_cast<uint64_t>(row * blocks + block));
                for (int64_t j = 4 * block; j < std::min(width, 4 * block + 4); ++j) {
                    const T kept = words[static_cast<size_t>(j % 4)] >= threshold ? scale * in[row][j] : T{0};
                    out[row][j] = args.mode == Grad::accumulate ? out[row][j] + kept : kept;
                }
            }
    });
}

}  // namespace colonnade
