// The divergences from a teacher's top tokens against TRL's values and gradients (tests/golden/make_policy_golden.py),
// and against central differences.

#include "layers/distillation_formulas.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "engine/io/json.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

/// The loss and its slopes by all logits, as a head computes them from the log-probabilities.
struct OfLogits {
    double value;
    std::vector<double> gradient;
};

OfLogits of_logits(double beta, const std::vector<double>& teacher, const std::vector<int64_t>& ids,
                   const std::vector<double>& logits) {
    const double log_total = log_sum_exp(logits.data(), std::ssize(logits));
    std::vector<double> student, slopes(ids.size());
    for (const int64_t id : ids) student.push_back(logits[static_cast<size_t>(id)] - log_total);
    const DistillationLoss loss =
        distillation_loss(beta, {teacher.data(), student.data(), std::ssize(ids)}, slopes.data());
    OfLogits out{loss.value, {}};
    for (const double logit : logits) out.gradient.push_back(-std::exp(logit - log_total) * loss.slope_sum);
    for (size_t i = 0; i < ids.size(); ++i) out.gradient[static_cast<size_t>(ids[i])] += slopes[i];
    return out;
}

TEST(DistillationFormulas, EqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    std::set<double> betas;
    for (const Json& g : golden.at("distillation")) {
        SCOPED_TRACE(g.dump());
        const OfLogits found = of_logits(g.at("beta"), g.at("teacher"), g.at("ids"), g.at("logits"));
        const auto expect = [](double value, double expected) {
            EXPECT_NEAR(value, expected, 1e-12 * std::max(1.0, std::abs(expected)));
        };
        expect(found.value, g.at("value"));
        for (size_t v = 0; v < found.gradient.size(); ++v) expect(found.gradient[v], g.at("gradient")[v]);
        betas.insert(g.at("beta").get<double>());
    }
    EXPECT_EQ(betas.size(), 4u);
}

TEST(DistillationFormulas, GradientsMatchDifferencesAndClosedForm) {
    const std::vector<double> teacher = {std::log(0.5), std::log(0.2)};
    const std::vector<int64_t> ids = {3, 0};
    std::vector<double> logits = {0.3, -1.2, 0.8, 1.1, -0.4};
    for (const double beta : {0.0, 0.3, 0.9, 1.0}) {
        const OfLogits at = of_logits(beta, teacher, ids, logits);
        double sum = 0;
        for (size_t v = 0; v < logits.size(); ++v) {
            const double saved = logits[v];
            logits[v] = saved + 1e-6;
            const double up = of_logits(beta, teacher, ids, logits).value;
            logits[v] = saved - 1e-6;
            EXPECT_NEAR(at.gradient[v], (up - of_logits(beta, teacher, ids, logits).value) / 2e-6, 1e-9) << beta;
            logits[v] = saved;
            sum += at.gradient[v];
        }
        EXPECT_NEAR(sum, 0, 1e-15) << "a shift of all logits changes nothing";
        EXPECT_GE(at.value, 0);
    }
    const OfLogits forward = of_logits(0, teacher, ids, logits);
    const double total = log_sum_exp(logits.data(), 5), tail = 1 - std::exp(0.3 - total) - std::exp(1.1 - total);
    EXPECT_NEAR(forward.gradient[3], std::exp(1.1 - total) - 0.5, 1e-15);
    EXPECT_NEAR(forward.gradient[1], std::exp(-1.2 - total) * (1 - 0.3 / tail), 1e-15);
}

TEST(DistillationFormulas, EqualDistributionsHaveNoLossAndExtremesStayFinite) {
    const std::vector<double> logits = {2, 1, 0.5, -3};
    const double total = log_sum_exp(logits.data(), 4);
    for (const double beta : {0.0, 0.5, 1.0}) {
        const OfLogits same = of_logits(beta, {2 - total, 1 - total}, {0, 1}, logits);
        EXPECT_NEAR(same.value, 0, 1e-15);
        for (const double slope : same.gradient) EXPECT_NEAR(slope, 0, 1e-15);
        // A student that is certain; a teacher whose rounded probabilities exceed 1; a token that neither would say.
        for (const double far : {40.0, 900.0}) {
            const OfLogits found = of_logits(beta, {-1e-4, -6, -800}, {0, 1, 2}, {far, 0, -far, 0});
            EXPECT_TRUE(std::isfinite(found.value)) << beta << " " << far;
            for (const double slope : found.gradient) EXPECT_TRUE(std::isfinite(slope)) << beta << " " << far;
        }
    }
    // A teacher's token of probability 0 adds nothing to the forward KL and to the JSD.
    for (const double beta : {0.0, 0.5}) {
        const double with = of_logits(beta, {-0.5, -INFINITY}, {0, 3}, {2, 1, 0.5, -400}).value;
        EXPECT_NEAR(with, of_logits(beta, {-0.5}, {0}, {2, 1, 0.5, -400}).value, 1e-15);
    }
}

}  // namespace
}  // namespace colonnade
