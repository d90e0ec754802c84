#include "layers/unpaired_loss.h"

#include "layers/cuda_kernels.h"
#include "layers/shape_check.h"

namespace colonnade {

UnpairedPointers pointers_of(const UnpairedAnswers& a) {
    return {.coefficients = a.coefficients.empty() ? nullptr : a.coefficients.as<double>(),
            .logps = a.logps.as<double>(),
            .reference = a.reference.as<double>(),
            .labels = a.labels.as<int32_t>(),
            .mismatched = a.mismatched.empty() ? nullptr : a.mismatched.as<double>(),
            .mismatched_count = a.mismatched_count,
            .settings = a.settings,
            .scale = a.scale};
}

void unpaired_loss(const Context& ctx, const UnpairedAnswers& a) {
    const ShapeCheck check = check_in_double(ctx, "unpaired_loss");
    const int64_t answers = a.logps.size(0);
    check("sums", a.sums, DType::f64, {UnpairedSums::count});
    if (!a.coefficients.empty()) check("coefficients", a.coefficients, DType::f64, {answers});
    check("logps", a.logps, DType::f64, {answers});
    check("reference", a.reference, DType::f64, {answers});
    check("labels", a.labels, DType::i32, {answers});
    if (a.settings.loss == UnpairedLoss::kto || !a.mismatched.empty())
        check("mismatched", a.mismatched, DType::f64, {1});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::unpaired_loss(ctx, a);
    const UnpairedPointers pointers = pointers_of(a);
    const double z = z_of(pointers);
    UnpairedSums total{};
    for (int64_t i = 0; i < answers; ++i) {
        require(pointers.labels[i] == 0 || pointers.labels[i] == 1, "unpaired_loss: answer {} has the label {}", i,
                pointers.labels[i]);
        const UnpairedSums own = loss_of_answer(pointers, i, z);
        for (int k = 0; k < UnpairedSums::count; ++k) total.of[k] += own.of[k];
    }
    for (int k = 0; k < UnpairedSums::count; ++k) a.sums.as<double>()[k] += total.of[k];
}

void add_log_ratios(const Context& ctx, const AddLogRatios& a) {
    const ShapeCheck check = check_in_double(ctx, "add_log_ratios");
    const int64_t answers = a.logps.size(0);
    check("sum", a.sum, DType::f64, {1});
    check("logps", a.logps, DType::f64, {answers});
    check("reference", a.reference, DType::f64, {answers});
    const PhaseTimer timer(ctx, "loss");
    if (ctx.device == Device::cuda) return cuda::add_log_ratios(ctx, a);
    double sum = 0;
    for (int64_t i = 0; i < answers; ++i) sum += a.logps.as<double>()[i] - a.reference.as<double>()[i];
    *a.sum.as<double>() += sum;
}

}  // namespace colonnade
