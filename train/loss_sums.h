#pragma once
// What a step learned, summed over its targets: sums of micro-steps and ranks simply add up.

#include "engine/context.h"

namespace colonnade {

/// Sums over targets; two of them add up to those of both.
struct LossSums {
    double nll = 0;  ///< weighted
    double weight = 0;
    double correct = 0;  ///< weighted count of targets that had the largest logit
    LossSums& operator+=(const LossSums& other);
    double mean() const { return weight > 0 ? nll / weight : 0; }
    double accuracy() const { return weight > 0 ? correct / weight : 0; }
};

struct AddLossSums {
    Tensor sums;     ///< f64 [3]: weighted nll, weight, weighted count of correct targets; added to
    Tensor nll;      ///< f64 [targets]
    Tensor correct;  ///< u8 [targets]
    Tensor weights;  ///< f32 [targets]
};
/// In a fixed order: the same bits in every run.
void add_loss_sums(const Context& ctx, const AddLossSums& args);

}  // namespace colonnade
