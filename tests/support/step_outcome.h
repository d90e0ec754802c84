#pragma once
// The result of the micro-steps of one optimizer step: loss sums and gradients. For tests that lay out the same samples
// in different ways.

#include <gtest/gtest.h>

#include "tests/support/relative_error.h"
#include "tests/support/tiny_model.h"

namespace colonnade {

struct Outcome {
    LossSums sums;
    std::vector<double> gradients;
};

/// Deterministic, so that no difference is one of the order in which a GPU happened to add.
inline Outcome run(Learner& learner, const std::vector<Batch>& batches, double total) {
    const Context ctx = learner.context({.deterministic = true});
    learner.begin_step();
    for (const Batch& batch : batches) learner.accumulate(ctx, batch, {.total = total});
    return {learner.loss(), numbers_of(learner, learner.gradients())};
}

/// The name of a test over families and dtypes.
inline std::string name_of_case(const testing::TestParamInfo<std::tuple<Architecture, DType>>& test) {
    return std::string(name_of(std::get<0>(test.param))) + "_" + name_of(std::get<1>(test.param));
}

}  // namespace colonnade
