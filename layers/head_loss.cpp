#include "layers/head_loss.h"

#include <cmath>
#include <limits>

#include "engine/gemm.h"
#include "engine/vector_math.h"
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
#pragma omp parallel for schedule(static) if (count * vocab >= parallel_from)
    for (int64_t i = 0; i < count; ++i) {
        const auto row = static_cast<size_t>(begin + i);
        const RowLoss loss = row_loss(logits[i], vocab, args.targets[row]);
        if (!evaluation) row_gradient(logits[i], vocab, args.targets[row], loss.sum, args.scales[row]);
        args.nll[row] = loss.nll;
        if (!args.correct.empty()) args.correct[row] = loss.correct;
    }
}

template <typename T>
void run(const Context& ctx, const HeadLoss& args) {
    const int64_t targets = std::ssize(args.targets), vocab = args.weight.size(0), width = args.weight.size(1);
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
                              .beta = 1});
    }
}

}  // namespace

void head_loss(const Context& ctx, const HeadLoss& args) {
    const ShapeCheck check(ctx, "head_loss", args.weight.dtype);
    const int64_t targets = std::ssize(args.targets), vocab = args.weight.size(0), hidden = args.weight.size(1);
    check("weight", args.weight, {vocab, hidden});
    check("hidden", args.hidden, {targets, hidden});
    check("logits", args.logits, {args.logits.size(0), vocab});
    if (!args.dhidden.empty()) check("dhidden", args.dhidden, {targets, hidden});
    if (!args.dweight.empty()) check("dweight", args.dweight, {vocab, hidden});
    const bool evaluation = args.dhidden.empty() && args.dweight.empty();
    if (args.logits.size(0) == 0)
        fail(Exit::internal, "head_loss: the logits scratch {} has no row", describe(args.logits));
    require(std::ssize(args.nll) == targets && (args.correct.empty() || std::ssize(args.correct) == targets) &&
                ((evaluation && args.scales.empty()) || std::ssize(args.scales) == targets),
            "head_loss: {} targets, but {} nll, {} correct, {} scales", targets, args.nll.size(), args.correct.size(),
            args.scales.size());
    for (size_t i = 0; i < args.targets.size(); ++i)
        if (args.targets[i] < 0 || args.targets[i] >= vocab)
            fail(Exit::data, "target {}: token {} is outside the vocabulary [0, {})", i, args.targets[i], vocab);
    dispatch_float(args.weight.dtype, [&]<typename T>() { run<T>(ctx, args); });
}

}  // namespace colonnade
