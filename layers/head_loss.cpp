#include "layers/head_loss.h"

#include <cmath>
#include <limits>

#include "engine/device/gemm.h"
#include "engine/device/vector_math.h"
#include "layers/cuda_kernels.h"
#include "layers/rows.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

struct RowLoss {
    double nll, sum;  ///< sum of exp(logits - max)
    bool correct;
};

/// Leaves exp(logits - max) in `logits`.
template <typename T>
RowLoss row_loss(T* logits, int64_t vocab, int32_t target) {
    T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < vocab; ++j) largest = logits[j] > largest ? logits[j] : largest;
    const T at_target = logits[target];
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < vocab; ++j) {
        logits[j] = vexp(logits[j] - largest);
        sum += logits[j];
    }
    return {std::log(sum) + largest - at_target, sum, at_target == largest};
}

/// exp(logits - max) become scale * (softmax - onehot(target)): the gradient of scale * nll.
template <typename T>
void row_gradient(T* logits, int64_t vocab, int32_t target, double sum, double scale) {
    // A product would leave NaN where a logit is not finite.
    if (scale == 0) {
        std::fill_n(logits, vocab, T{0});
        return;
    }
    const T factor = static_cast<T>(scale / sum);
#pragma omp simd
    for (int64_t j = 0; j < vocab; ++j) logits[j] *= factor;
    logits[target] -= static_cast<T>(scale);
}

/// The rows [begin, begin + count) of the batch, whose logits lie in the first rows of the scratch.
template <typename T>
void chunk_loss(const Context& ctx, const HeadLoss& args, int64_t begin, int64_t count) {
    const PhaseTimer timer(ctx, "loss");
    const Rows<T> logits{args.logits.as<T>(), args.logits.stride[0]};
    const int64_t vocab = args.weight.size(0);
    const bool evaluation = args.dhidden.empty() && args.dweight.empty();
    const int32_t* const targets = args.targets.as<int32_t>() + begin;
    const double* const scales = evaluation ? nullptr : args.scales.as<double>() + begin;
    double* const nll = args.nll.as<double>() + begin;
    uint8_t* const correct = args.correct.empty() ? nullptr : args.correct.as<uint8_t>() + begin;
#pragma omp parallel for schedule(static) if (count * vocab >= parallel_from)
    for (int64_t i = 0; i < count; ++i) {
        const RowLoss loss = row_loss(logits[i], vocab, targets[i]);
        if (!evaluation) row_gradient(logits[i], vocab, targets[i], loss.sum, scales[i]);
        nll[i] = loss.nll;
        if (correct) correct[i] = loss.correct;
    }
}

template <typename T>
void run(const Context& ctx, const HeadLoss& args) {
    const int64_t targets = args.targets.size(0), vocab = args.weight.size(0), width = args.weight.size(1);
    const Rows<const T> hidden{args.hidden.as<T>(), args.hidden.stride[0]};
    const Rows<const T> weight{args.weight.as<T>(), args.weight.stride[0]};
    const Rows<T> logits{args.logits.as<T>(), args.logits.stride[0]};
    for (int64_t begin = 0; begin < targets; begin += args.logits.size(0)) {
        const int64_t count = std::min(args.logits.size(0), targets - begin);
        gemm(ctx, Gemm<T>{.m = count,
                          .n = vocab,
                          .k = width,
                          .c = logits.data,
                          .ldc = logits.stride,
                          .a = hidden[begin],
                          .lda = hidden.stride,
                          .b = weight.data,
                          .ldb = weight.stride,
                          .transpose_b = true});
        chunk_loss<T>(ctx, args, begin, count);
        if (!args.dhidden.empty())
            gemm(ctx, Gemm<T>{.m = count,
                              .n = width,
                              .k = vocab,
                              .c = args.dhidden.as<T>() + begin * args.dhidden.stride[0],
                              .ldc = args.dhidden.stride[0],
                              .a = logits.data,
                              .lda = logits.stride,
                              .b = weight.data,
                              .ldb = weight.stride});
        if (!args.dweight.empty())
            gemm(ctx, Gemm<T>{.m = vocab,
                              .n = width,
                              .k = count,
                              .c = args.dweight.as<T>(),
                              .ldc = args.dweight.stride[0],
                              .a = logits.data,
                              .lda = logits.stride,
                              .b = hidden[begin],
                              .ldb = hidden.stride,
                              .transpose_a = true,
                              .beta = T(begin > 0 || args.dweight_mode == Grad::accumulate ? 1 : 0)});
    }
}

/// The same on a GPU.
void run_on_gpu(const Context& ctx, const HeadLoss& args) {
    const int64_t targets = args.targets.size(0), vocab = args.weight.size(0), width = args.weight.size(1);
    for (int64_t begin = 0; begin < targets; begin += args.logits.size(0)) {
        const int64_t count = std::min(args.logits.size(0), targets - begin);
        const auto part = [&](const Tensor& t) { return t.empty() ? t : t.slice(0, begin, begin + count); };
        const HeadLoss chunk{.nll = part(args.nll),
                             .correct = part(args.correct),
                             .dhidden = part(args.dhidden),
                             .dweight = args.dweight,
                             .logits = args.logits.slice(0, 0, count),
                             .hidden = part(args.hidden),
                             .weight = args.weight,
                             .targets = part(args.targets),
                             .scales = part(args.scales)};
        gemm(ctx, GpuGemm{.m = count,
                          .n = vocab,
                          .k = width,
                          .c = chunk.logits,
                          .a = chunk.hidden,
                          .b = chunk.weight,
                          .transpose_b = true});
        {
            const PhaseTimer timer(ctx, "loss");
            cuda::row_losses(ctx, chunk);
        }
        if (!chunk.dhidden.empty())
            gemm(ctx,
                 GpuGemm{.m = count, .n = width, .k = vocab, .c = chunk.dhidden, .a = chunk.logits, .b = chunk.weight});
        if (!chunk.dweight.empty())
            gemm(ctx, GpuGemm{.m = vocab,
                              .n = width,
                              .k = count,
                              .c = chunk.dweight,
                              .a = chunk.logits,
                              .b = chunk.hidden,
                              .transpose_a = true,
                              .beta = begin > 0 || args.dweight_mode == Grad::accumulate ? 1.0f : 0.0f});
    }
}

void check_targets(std::span<const int32_t> targets, int64_t vocab) {
    for (size_t i = 0; i < targets.size(); ++i)
        if (targets[i] < 0 || targets[i] >= vocab)
            fail(Exit::data, "target {}: token {} is outside the vocabulary [0, {})", i, targets[i], vocab);
}

}  // namespace

void head_loss(const Context& ctx, const HeadLoss& args) {
    const ShapeCheck check(ctx, "head_loss", args.weight.dtype);
    const int64_t targets = args.targets.size(0), vocab = args.weight.size(0), hidden = args.weight.size(1);
    check("weight", args.weight, {vocab, hidden});
    check("hidden", args.hidden, {targets, hidden});
    check("logits", args.logits, {args.logits.size(0), vocab});
    if (!args.dhidden.empty()) check("dhidden", args.dhidden, {targets, hidden});
    if (!args.dweight.empty()) check("dweight", args.dweight, sum_dtype(args.weight.dtype), {vocab, hidden});
    check("targets", args.targets, DType::i32, {targets});
    check("nll", args.nll, DType::f64, {targets});
    if (!args.correct.empty()) check("correct", args.correct, DType::u8, {targets});
    const bool evaluation = args.dhidden.empty() && args.dweight.empty();
    require(targets > 0 || args.dweight.empty() || args.dweight_mode == Grad::accumulate,
            "head_loss: no target to overwrite the weight's gradient with");
    if (args.logits.size(0) == 0)
        fail(Exit::internal, "head_loss: the logits scratch {} has no row", describe(args.logits));
    if (!evaluation || !args.scales.empty()) check("scales", args.scales, DType::f64, {targets});
    if (ctx.device == Device::cuda) return run_on_gpu(ctx, args);
    check_targets(elements<const int32_t>(args.targets), vocab);
    dispatch_float(args.weight.dtype, [&]<typename T>() { run<T>(ctx, args); });
}

}  // namespace colonnade
