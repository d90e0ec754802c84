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
    const bool taught = !a.divergences.empty();
    require(a.sums.numel() == (taught ? 5 : 3) && a.nll.numel() == a.weights.numel() &&
                a.correct.numel() == a.weights.numel() && (!taught || a.divergences.numel() == a.weights.numel()),
            "add_loss_sums: {} sums, {} nll, {} correct, {} divergences, {} weights", a.sums.numel(), a.nll.numel(),
            a.correct.numel(), a.divergences.numel(), a.weights.numel());
    if (ctx.device == Device::cuda) return cuda::add_loss_sums(ctx, a);
    const double* nll = a.nll.as<double>();
    const double* weights = a.weights.as<double>();
    const uint8_t* correct = a.correct.as<uint8_t>();
    const double* divergences = taught ? a.divergences.as<double>() : nullptr;
    std::array<double, 5> sums{};
    for (int64_t i = 0; i < a.weights.numel(); ++i) {
        const double weight = weights[i];
        sums[0] += weight * (taught ? a.divergence_weight * divergences[i] + a.nll_weight * nll[i]
                                    : token_loss(a.loss, -nll[i]).value);
        sums[1] += weight;
        sums[2] += weight * correct[i];
        if (!taught) continue;
        sums[3] += weight * divergences[i];
        sums[4] += weight * nll[i];
    }
    for (int64_t s = 0; s < a.sums.numel(); ++s) a.sums.as<double>()[s] += sums[static_cast<size_t>(s)];
}

}  // namespace colonnade
