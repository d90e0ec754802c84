#pragma once
// LossSums: the loss and its metrics, summed over the targets of a step, or over its samples of answers. Sums of
// micro-steps, steps and ranks are added; of two extremes the larger one is kept.

#include <array>
#include <limits>
#include <span>

#include "engine/device/context.h"
#include "layers/policy_formulas.h"

namespace colonnade {

struct LossSums {
    static constexpr int64_t sums = 15, maxima = 8, count = sums + maxima;
    static constexpr double nothing = -std::numeric_limits<double>::infinity();

    double nll = 0;     ///< the loss; for a language model the weighted negative log-likelihood of its targets
    double weight = 0;  ///< what the loss is divided by: the weights of targets, pairs or rankings
    /// Weighted count of targets with the largest logit, or number of pairs whose better answer won.
    double correct = 0;
    std::array<double, sums - 3> more{};  ///< the objective's own sums (train/objectives/objective.h)
    std::array<double, maxima> extremes = no_extremes();

    using Numbers = std::array<double, count>;
    /// Converts from and to their layout in memory: the sums, then the extremes.
    static LossSums of(std::span<const double> numbers);
    Numbers numbers() const;

    LossSums& operator+=(const LossSums& other);
    double mean() const { return weight > 0 ? nll / weight : 0; }
    double accuracy() const { return weight > 0 ? correct / weight : 0; }

  private:
    static constexpr std::array<double, maxima> no_extremes() {
        std::array<double, maxima> extremes{};
        extremes.fill(nothing);
        return extremes;
    }
};

struct AddLossSums {
    /// f64 [3]: weighted loss, weight, weighted count of correct targets; with `divergences` [5]: weighted divergence and
    /// nll, too. Added to.
    Tensor sums;
    Tensor nll;      ///< f64 [targets]
    Tensor correct;  ///< u8 [targets]
    Tensor weights;  ///< f64 [targets]
    TokenLoss loss = TokenLoss::nll;
    Tensor divergences{};  ///< f64 [targets], from a teacher; or empty. Then the loss of a target is ...
    double divergence_weight = 0, nll_weight = 0;  ///< ... the sum of both with these weights
};
/// Sums in a fixed order: every run gives the same bits.
void add_loss_sums(const Context& ctx, const AddLossSums& args);

namespace cuda {
/// The GPU side, called after the checks. A build without CUDA links train/objectives/loss_sums_without_cuda.cpp.
void add_loss_sums(const Context& ctx, const AddLossSums& args);
}  // namespace cuda

}  // namespace colonnade
