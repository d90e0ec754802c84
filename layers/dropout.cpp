#include "layers/dropout.h"

#include "engine/device/philox.h"
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
    if (!args.mask.rows.empty()) check("rows", args.mask.rows, DType::i32, {rows});
    const PhaseTimer timer(ctx, "dropout");
    if (ctx.device == Device::cuda) return cuda::dropout(ctx, args);
    dispatch_float(args.in.dtype, [&]<typename T>() {
        const Rows<T> out{args.out.as<T>(), args.out.stride[0]};
        const Rows<const T> in{args.in.as<T>(), args.in.stride[0]};
        const Philox random{args.mask.seed, args.mask.stream};
        const uint32_t threshold = dropout_threshold(args.mask.p);
        const T scale = static_cast<T>(1 / (1 - args.mask.p));
        const int64_t blocks = dropout_blocks(width);
        const int32_t* const mask_rows = args.mask.rows.empty() ? nullptr : args.mask.rows.as<int32_t>();
        // Makes the words of many blocks first, eight or sixteen at a time in vector registers: three times as fast.
        constexpr int64_t group = 64;
#pragma omp parallel for schedule(static) if (rows * width >= parallel_from)
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t first_block = (mask_rows ? mask_rows[row] : args.mask.first + row) * blocks;
            for (int64_t first = 0; first < blocks; first += group) {
                uint32_t words[4 * group];
#pragma omp simd
                for (int64_t b = 0; b < group; ++b) {
                    const auto four = random.block(static_cast<uint64_t>(first_block + first + b));
                    for (int64_t i = 0; i < 4; ++i) words[4 * b + i] = four[static_cast<size_t>(i)];
                }
                const T* const from = in[row] + 4 * first;
                T* const to = out[row] + 4 * first;
                const int64_t count = std::min(4 * group, width - 4 * first);
                const bool add = args.mode == Grad::accumulate;
#pragma omp simd
                for (int64_t j = 0; j < count; ++j) {
                    const T kept = words[j] >= threshold ? scale * from[j] : T{0};
                    to[j] = add ? to[j] + kept : kept;
                }
            }
        }
    });
}

}  // namespace colonnade
