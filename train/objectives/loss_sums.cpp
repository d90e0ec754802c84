#include "train/objectives/loss_sums.h"

#include <algorithm>

namespace colonnade {

LossSums LossSums::of(std::span<const double> n) {
    require(std::ssize(n) >= count, "{} numbers of {}", n.size(), count);
    return {n[0], n[1], n[2], {n[3], n[4], n[5], n[6], n[7]}, {n[8], n[9]}};
}

LossSums::Numbers LossSums::numbers() const {
    return {nll, weight, correct, more[0], more[1], more[2], more[3], more[4], extremes[0], extremes[1]};
}

LossSums& LossSums::operator+=(const LossSums& other) {
    nll += other.nll;
    weight += other.weight;
    correct += other.correct;
    for (size_t i = 0; i < more.size(); ++i) more[i] += other.more[i];
    for (size_t i = 0; i < extremes.size(); ++i) extremes[i] = std::max(extremes[i], other.extremes[i]);
    return *this;
}

void add_loss_sums(const Context& ctx, const AddLossSums& a) {
    require(a.sums.numel() == 3 && a.nll.numel() == a.weights.numel() && a.correct.numel() == a.weights.numel(),
            "add_loss_sums: {} nll, {} correct, {} weights", a.nll.numel(), a.correct.numel(), a.weights.numel());
    if (ctx.device == Device::cuda) return cuda::add_loss_sums(ctx, a);
    const double* nll = a.nll.as<double>();
    const double* weights = a.weights.as<double>();
    const uint8_t* correct = a.correct.as<uint8_t>();
    LossSums sums;
    for (int64_t i = 0; i < a.weights.numel(); ++i) {
        const double weight = weights[i];
        sums.nll += weight * nll[i];
        sums.weight += weight;
        sums.correct += weight * correct[i];
    }
    double* total = a.sums.as<double>();
    total[0] += sums.nll;
    total[1] += sums.weight;
    total[2] += sums.correct;
}

}  // namespace colonnade
