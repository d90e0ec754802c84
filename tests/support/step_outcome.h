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

/// Batches of one sample each.
inline std::vector<Batch> separate(const std::vector<Sample>& samples) {
    std::vector<Batch> batches;
    for (const Sample& sample : samples) batches.push_back(make_batch({{&sample}}));
    return batches;
}

/// Two batches of rows that share what they begin with, a third of the samples in each row; the first has two rows.
inline std::vector<Batch> packed(const std::vector<Sample>& samples) {
    std::vector<std::vector<const Sample*>> rows(3);
    for (size_t i = 0; i < samples.size(); ++i) rows[3 * i / samples.size()].push_back(&samples[i]);
    return {make_batch({rows[0], rows[1]}, {.sharing = Sharing::row}),
            make_batch({rows[2]}, {.sharing = Sharing::row})};
}

inline double total_of(const Objective& objective, const std::vector<Batch>& batches) {
    double total = 0;
    for (const Batch& batch : batches) total += objective.total(batch);
    return total;
}

/// The name of a test over families and dtypes.
inline std::string name_of_case(const testing::TestParamInfo<std::tuple<Architecture, DType>>& test) {
    return std::string(name_of(std::get<0>(test.param))) + "_" + name_of(std::get<1>(test.param));
}

}  // namespace colonnade
