#include "train/objectives/loss_sums.h"

#include <algorithm>

namespace colonnade {

LossSums LossSums::of(std::span<const double> n) {
    require(std::ssize(n) >= count, "{} numbers of {}", n.size(), count);
    LossSums all{.nll = n[0], .weight = n[1], .correct = n[2]};
    std::copy_n(n.begin() + 3, all.more.size(), all.more.begin());
    std::copy_n(n.begin() + sums, maxima, all.extremes.begin());
    return all;
}

LossSums::Numbers LossSums::numbers() const {
    Numbers all{nll, weight, correct};
    std::ranges::copy(extremes, std::ranges::copy(more, all.begin() + 3).out);
    return all;
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
        sums.nll += weight * token_loss(a.loss, -nll[i]).value;
        sums.weight += weight;
        sums.correct += weight * correct[i];
    }
    double* total = a.sums.as<double>();
    total[0] += sums.nll;
    total[1] += sums.weight;
    total[2] += sums.correct;
}

}  // namespace colonnade
