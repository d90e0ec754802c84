// The losses of labelled answers against TRL's values and gradients (tests/golden/make_policy_golden.py) and against
// central differences.

#include "layers/unpaired_formulas.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "engine/io/json.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

TEST(UnpairedFormulas, EqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    std::set<std::string> seen;
    std::set<bool> clamped;
    for (const Json& g : golden.at("unpaired")) {
        SCOPED_TRACE(g.dump());
        const UnpairedSettings settings{
            .loss = g.at("loss") == "kto" ? UnpairedLoss::kto : UnpairedLoss::apo_zero_unpaired,
            .beta = g.at("beta"),
            .desirable_weight = g.at("desirable_weight"),
            .undesirable_weight = g.at("undesirable_weight")};
        const std::vector<double> log_ratios = g.at("log_ratios"), gradient = g.at("gradient");
        const double answers = static_cast<double>(log_ratios.size());
        double z = 0, value = 0;
        for (const double one : g.at("mismatched").get<std::vector<double>>()) z += one / answers;
        z = std::max(z, 0.0);
        if (settings.loss == UnpairedLoss::kto) {
            EXPECT_NEAR(z, g.at("kl").get<double>(), 1e-14);
            clamped.insert(z == 0);
        }
        for (size_t i = 0; i < log_ratios.size(); ++i) {
            const auto label = g.at("labels")[i] == 1 ? AnswerLabel::desirable : AnswerLabel::undesirable;
            const ValueAndSlope found = unpaired_loss(settings, label, log_ratios[i], z);
            value += found.value / answers;
            EXPECT_NEAR(found.slope / answers, gradient[i], 1e-14) << i;
        }
        EXPECT_NEAR(value, g.at("value").get<double>(), 1e-13);
        seen.insert(g.at("loss"));
    }
    EXPECT_EQ(seen.size(), 2u);
    EXPECT_EQ(clamped.size(), 2u) << "z should be 0 in some cases and above it in others";
}

TEST(UnpairedFormulas, SlopesMatchDifferencesAndStayFinite) {
    for (const UnpairedLoss loss : {UnpairedLoss::kto, UnpairedLoss::apo_zero_unpaired})
        for (const AnswerLabel label : {AnswerLabel::desirable, AnswerLabel::undesirable}) {
            const UnpairedSettings settings{loss, 0.3, 1.4, 0.6};
            const auto at = [&](double s) { return unpaired_loss(settings, label, s, 0.7); };
            for (const double s : {-9.0, -0.5, 0.0, 0.7, 4.0})
                EXPECT_NEAR(at(s).slope, (at(s + 1e-6).value - at(s - 1e-6).value) / 2e-6, 1e-9) << s;
            for (const double far : {-1e5, 1e5}) {
                EXPECT_EQ(at(far).slope, 0);
                EXPECT_TRUE(std::isfinite(at(far).value));
            }
            // A better answer costs less if it is desirable, and more if not.
            EXPECT_EQ(at(1).slope < 0, label == AnswerLabel::desirable);
        }
}

}  // namespace
}  // namespace colonnade
