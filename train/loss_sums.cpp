#include "train/loss_sums.h"

#include "train/cuda_kernels.h"

namespace colonnade {

LossSums& LossSums::operator+=(const LossSums& other) {
    nll += other.nll;
    weight += other.weight;
    correct += other.correct;
    return *this;
}

void add_loss_sums(const Context& ctx, const AddLossSums& a) {
    require(a.sums.numel() == 3 && a.nll.numel() == a.weights.numel() && a.correct.numel() == a.weights.numel(),
            "add_loss_sums: {} nll, {} correct, {} weights", a.nll.numel(), a.correct.numel(), a.weights.numel());
    if (ctx.device == Device::cuda) return cuda::add_loss_sums(ctx, a);
    const double* nll = a.nll.as<double>();
    const float* weights = a.weights.as<float>();
    const uint8_t* correct = a.correct.as<uint8_t>();
    LossSums sums;
    for (int64_t i = 0; i < a.weights.numel(); ++i) {
        const double weight = weights[i];
        sums += {weight * nll[i], weight, weight * correct[i]};
    }
    double* total = a.sums.as<double>();
    total[0] += sums.nll;
    total[1] += sums.weight;
    total[2] += sums.correct;
}

}  // namespace colonnade
