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

/// Replaces `logits` by exp(logits - max).
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

/// Replaces exp(logits - max) by scale * (softmax - onehot(target)), the gradient of scale * nll.
template <typename T>
void row_gradient(T* logits, int64_t vocab, int32_t target, double sum, double scale) {
    // Multiplying by 0 would leave NaN if a logit is not finite.
    if (scale == 0) {
        std::fill_n(logits, vocab, T{0});
        return;
    }
    const T factor = static_cast<T>(scale / sum);
#pragma omp simd
    for (int64_t j = 0; j < vocab; ++j) logits[j] *= factor;
    logits[target] -= static_cast<T>(scale);
}

bool is_evaluation(const HeadLoss& args) {
    return args.dhidden.empty() && args.dweight.empty();
}

/// The targets [begin, begin + count), whose logits are the first rows of the scratch.
HeadLoss chunk_of(const HeadLoss& args, int64_t begin, int64_t count) {
    const auto part = [&](const Tensor& t) { return t.empty() ? t : t.slice(0, begin, begin + count); };
    return {.nll = part(args.nll),
            .correct = part(args.correct),
            .dhidden = part(args.dhidden),
            .dweight = args.dweight,
            .dweight_mode = begin > 0 ? Grad::accumulate : args.dweight_mode,
            .logits = args.logits.slice(0, 0, count),
            .hidden = part(args.hidden),
            .weight = args.weight,
            .targets = part(args.targets),
            .scales = part(args.scales)};
}

/// nll, correct and, in training, the gradients of one chunk's logits in their place.
void row_losses(const Context& ctx, const HeadLoss& chunk) {
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::row_losses(ctx, chunk);
    dispatch_float(chunk.weight.dtype, [&]<typename T>() {
        const Rows<T> logits{chunk.logits.as<T>(), chunk.logits.stride[0]};
        const int64_t count = chunk.logits.size(0), vocab = chunk.logits.size(1);
        const int32_t* const targets = chunk.targets.as<int32_t>();
        const double* const scales = is_evaluation(chunk) ? nullptr : chunk.scales.as<double>();
        double* const nll = chunk.nll.as<double>();
        uint8_t* const correct = chunk.correct.empty() ? nullptr : chunk.correct.as<uint8_t>();
#pragma omp parallel for schedule(static) if (count * vocab >= parallel_from)
        for (int64_t i = 0; i < count; ++i) {
            const RowLoss loss = row_loss(logits[i], vocab, targets[i]);
            if (scales) row_gradient(logits[i], vocab, targets[i], loss.sum, scales[i]);
            nll[i] = loss.nll;
            if (correct) correct[i] = loss.correct;
        }
    });
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
    require(targets > 0 || args.dweight.empty() || args.dweight_mode == Grad::accumulate,
            "head_loss: no targets, so the weight's gradient cannot be overwritten");
    require(args.logits.size(0) > 0, "head_loss: the logits scratch {} has no rows", args.logits);
    if (!is_evaluation(args) || !args.scales.empty()) check("scales", args.scales, DType::f64, {targets});
    if (ctx.device == Device::cpu) check_targets(elements<const int32_t>(args.targets), vocab);
    const int64_t rows = args.logits.size(0);
    for (int64_t begin = 0; begin < targets; begin += rows) {
        const HeadLoss chunk = chunk_of(args, begin, std::min(rows, targets - begin));
        gemm(ctx, {.c = chunk.logits, .a = chunk.hidden, .b = chunk.weight, .transpose_b = true});
        row_losses(ctx, chunk);
        if (!chunk.dhidden.empty()) gemm(ctx, {.c = chunk.dhidden, .a = chunk.logits, .b = chunk.weight});
        if (!chunk.dweight.empty())
            gemm(ctx, {.c = chunk.dweight,
                       .a = chunk.logits,
                       .b = chunk.hidden,
                       .transpose_a = true,
                       .beta = beta_of(chunk.dweight_mode)});
    }
}

}  // namespace colonnade
