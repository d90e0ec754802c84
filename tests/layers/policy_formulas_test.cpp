// The losses of policy gradients against TRL's values and gradients (tests/golden/make_policy_golden.py), against
// central differences, and at their edges.

#include "layers/policy_formulas.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/device/philox.h"
#include "engine/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"
#include "tests/support/policy_names.h"

namespace colonnade {
namespace {

const std::map<std::string, ImportanceMode> modes = {{"sequence_mask", ImportanceMode::sequence_mask},
                                                     {"sequence_truncate", ImportanceMode::sequence_truncate},
                                                     {"token_mask", ImportanceMode::token_mask},
                                                     {"token_truncate", ImportanceMode::token_truncate}};

using Rows = std::vector<std::vector<double>>;

void expect_near(double found, double expected, const std::string& what) {
    EXPECT_NEAR(found, expected, 1e-12 * std::max(1.0, std::abs(expected))) << what;
}

/// Sequences of terms, and what was given with them.
struct Rollouts {
    Rows logps, old, ref, importance;
    std::vector<double> advantages;
    double max_completion_length = 50;
};

struct Outcome {
    double value = 0;
    Rows gradient;
    double kl = 0, low = 0, high = 0;  ///< means over terms; low and high over sequences at these levels
};

Outcome policy_loss(const PolicySettings& s, const Rollouts& r) {
    PolicyTotals totals{0, static_cast<double>(r.logps.size()), r.max_completion_length};
    for (const auto& row : r.logps) totals.terms += static_cast<double>(row.size());
    const bool by_term = s.ratio == RatioLevel::token;
    Outcome out;
    const auto count = [&](double ratio, double advantage) {
        const double part = 1 / (by_term ? totals.terms : totals.sequences);
        const ClipSide side = clip_side(s, ratio, advantage);
        out.low += side == ClipSide::low ? part : 0;
        out.high += side == ClipSide::high ? part : 0;
    };
    for (size_t q = 0; q < r.logps.size(); ++q) {
        const double terms = static_cast<double>(r.logps[q].size()), A = r.advantages[q];
        const double scale = term_scale(s.loss, totals, terms);
        PolicySequence sums{.advantage = A, .terms = terms, .log_ratio = 0, .importance = 0};
        for (size_t i = 0; i < r.logps[q].size(); ++i) {
            sums.log_ratio += r.logps[q][i] - r.old[q][i];
            sums.kl += kl_estimate(r.logps[q][i], r.ref[q][i]).value;
            sums.importance += r.importance[q][i] / terms;
        }
        const PolicySequenceLoss whole = policy_sequence(s, sums);
        if (!by_term) {
            out.value += scale * terms * whole.value;
            out.kl += terms / totals.terms * whole.kl;
            count(whole.ratio, A);
        }
        auto& slopes = out.gradient.emplace_back();
        for (size_t i = 0; i < r.logps[q].size(); ++i) {
            const double x = r.logps[q][i], f = r.ref[q][i];
            if (!by_term) {
                slopes.push_back(scale * (whole.slope + whole.kl_slope * kl_estimate(x, f).slope));
                continue;
            }
            const PolicyTermLoss term = policy_term(s, {x, r.old[q][i], A, f, r.importance[q][i]});
            out.value += scale * term.value;
            out.kl += term.kl / totals.terms;
            slopes.push_back(scale * term.slope);
            count(term.ratio, A);
        }
    }
    return out;
}

PolicySettings settings_of(const Json& g) {
    const auto number = [&](const char* key) { return g.at(key).get<double>(); };
    PolicySettings s;
    s.loss = losses.at(g.at("loss_type"));
    s.ratio = levels.at(g.at("level"));
    s.epsilon_low = number("epsilon_low");
    s.epsilon_high = number("epsilon_high");
    if (!g.at("delta").is_null()) s.delta = number("delta");
    s.sapo_temperature_pos = number("sapo_temperature_pos");
    s.sapo_temperature_neg = number("sapo_temperature_neg");
    s.beta = number("beta");
    s.kl = g.at("use_bias_correction_kl") ? KlEstimate::bias_corrected : KlEstimate::plain;
    return s;
}

/// The factors of all terms, from the log-probabilities that the sampler reported.
Rows importance_of(const Json& g, const Rollouts& r, const Rows& sampled) {
    Rows factors = r.logps;
    for (auto& row : factors) std::fill(row.begin(), row.end(), 1.0);
    if (!g.contains("importance")) return factors;
    const ImportanceSettings s{modes.at(g.at("importance")), 0, g.at("importance_max")};
    for (size_t q = 0; q < factors.size(); ++q) {
        double sum = 0;
        for (size_t i = 0; i < factors[q].size(); ++i) sum += r.old[q][i] - sampled[q][i];
        for (size_t i = 0; i < factors[q].size(); ++i)
            factors[q][i] =
                importance_factor(s, s.mode == ImportanceMode::token_truncate ? r.old[q][i] - sampled[q][i] : sum);
    }
    return factors;
}

TEST(PolicyFormulas, EqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    const Json& given = golden.at("policy");
    Rollouts r;
    r.logps = given.at("logps").get<Rows>();
    r.old = given.at("old").get<Rows>();
    r.ref = given.at("ref").get<Rows>();
    r.advantages = given.at("advantages").get<std::vector<double>>();
    r.max_completion_length = given.at("max_completion_length");
    std::set<std::string> seen, metrics;
    for (const Json& g : golden.at("policy_cases")) {
        SCOPED_TRACE(g.dump());
        r.importance = importance_of(g, r, given.at("sampled").get<Rows>());
        const Outcome found = policy_loss(settings_of(g), r);
        expect_near(found.value, g.at("value"), "value");
        const Rows gradient = g.at("gradient").get<Rows>();
        for (size_t q = 0; q < gradient.size(); ++q)
            for (size_t i = 0; i < gradient[q].size(); ++i)
                expect_near(found.gradient[q][i], gradient[q][i], fmt::format("sequence {} term {}", q, i));
        for (const auto& [name, value] : g.at("metrics").items()) {
            const double expected = value.get<double>();
            if (name == "kl") expect_near(found.kl, expected, name);
            // Shares of a few terms, which TRL averages in float.
            if (name == "clip_ratio/low_mean") {
                EXPECT_NEAR(found.low, expected, 1e-7) << name;
            }
            if (name == "clip_ratio/high_mean" || name == "cispo_clip_ratio") {
                EXPECT_NEAR(found.high, expected, 1e-7) << name;
            }
            if (expected > 0) metrics.insert(name);
        }
        seen.insert(g.at("loss_type"));
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(policy_losses));
    EXPECT_EQ(metrics.size(), 4u) << "a metric that is always 0 checks nothing";
}

TEST(PolicyFormulas, TokenLossesEqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    ASSERT_EQ(golden.at("token").size(), 2u);
    for (const Json& g : golden.at("token"))
        for (size_t i = 0; i < g.at("logps").size(); ++i) {
            const TokenLoss kind = g.at("loss") == "dft" ? TokenLoss::dft : TokenLoss::nll;
            const ValueAndSlope found = token_loss(kind, g.at("logps")[i]);
            expect_near(found.value, g.at("values")[i], "value");
            expect_near(found.slope, g.at("gradient")[i], "slope");
        }
}

TEST(PolicyFormulas, ImportanceFactorsEqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    std::map<std::string, int> bounded;
    for (const Json& g : golden.at("importance")) {
        ImportanceSettings s{modes.at(g.at("mode")), 0, INFINITY};
        if (!g.at("clip_min").is_null()) s.clip_min = g.at("clip_min");
        if (!g.at("clip_max").is_null()) s.clip_max = g.at("clip_max");
        for (size_t q = 0; q < g.at("factors").size(); ++q) {
            const std::vector<double> ratios = g.at("log_ratio")[q], factors = g.at("factors")[q];
            double sum = 0;
            for (const double one : ratios) sum += one;
            for (size_t i = 0; i < factors.size(); ++i) {
                const double log_ratio = factors.size() == 1 ? sum : ratios[i];
                expect_near(importance_factor(s, log_ratio), factors[i], g.at("mode"));
                bounded[g.at("mode")] += factors[i] != std::exp(log_ratio);
            }
        }
    }
    EXPECT_EQ(bounded.size(), modes.size());
    for (const auto& [mode, count] : bounded) EXPECT_GT(count, 0) << mode;
}

/// What is held constant makes a slope of its own: cispo's ratio.
TEST(PolicyFormulas, GradientsMatchDifferences) {
    const Philox random{17, 0};
    uint64_t draw = 0;
    for (const auto& [loss_name, loss] : losses)
        for (const auto& [level_name, level] : levels)
            for (const KlEstimate kl : {KlEstimate::plain, KlEstimate::bias_corrected}) {
                if (loss == PolicyLoss::cispo || (loss == PolicyLoss::rloo) != (level == RatioLevel::sequence_sum))
                    continue;
                SCOPED_TRACE(loss_name + " " + level_name);
                PolicySettings s{.loss = loss, .ratio = level, .delta = 1.6, .beta = 0.4, .kl = kl};
                Rollouts r;
                for (size_t q = 0; q < 5; ++q) {
                    r.advantages.push_back(random.normal(draw++));
                    for (Rows* rows : {&r.logps, &r.old, &r.ref, &r.importance}) rows->emplace_back();
                    for (size_t i = 0; i <= q; ++i) {
                        const double x = -3 * random.uniform(draw++);
                        r.logps[q].push_back(x);
                        r.old[q].push_back(x + 0.2 * random.normal(draw++));
                        r.ref[q].push_back(x + 0.2 * random.normal(draw++));
                        r.importance[q].push_back(0.7);
                    }
                }
                const Outcome at = policy_loss(s, r);
                for (size_t q = 0; q < 5; ++q)
                    for (size_t i = 0; i <= q; ++i) {
                        const double x = r.logps[q][i], step = 1e-6;
                        r.logps[q][i] = x + step;
                        const double up = policy_loss(s, r).value;
                        r.logps[q][i] = x - step;
                        EXPECT_NEAR(at.gradient[q][i], (up - policy_loss(s, r).value) / (2 * step), 1e-8);
                        r.logps[q][i] = x;
                    }
            }
}

TEST(PolicyFormulas, ClipAtTheirBounds) {
    const PolicySettings s{.delta = 2};
    const auto at = [&](double ratio, double advantage) { return policy_surrogate(s, ratio, advantage, 0); };
    const double high = 1 + s.epsilon_high, low = 1 - s.epsilon_low;
    // On a bound the slope still counts, as in torch's clamp; past it it does not.
    EXPECT_EQ(at(high, 3).slope, -3 * high);
    EXPECT_EQ(at(std::nextafter(high, 2), 3).slope, 0);
    EXPECT_EQ(at(std::nextafter(high, 2), 3).value, -3 * high);
    EXPECT_EQ(at(low, -3).slope, 3 * low);
    EXPECT_EQ(at(std::nextafter(low, 0), -3).slope, 0);
    EXPECT_EQ(at(std::nextafter(low, 0), -3).value, 3 * low);
    // The other sides have no bound but delta.
    EXPECT_EQ(at(0.1, 3).slope, -3 * 0.1);
    EXPECT_EQ(at(1.9, -3).slope, 3 * 1.9);
    EXPECT_EQ(at(2, -3).slope, 3 * 2);
    EXPECT_EQ(at(2.5, -3).slope, 0);
    EXPECT_EQ(at(2.5, -3).value, 3 * 2);
    EXPECT_EQ(clip_side(s, high, 3), ClipSide::none);
    EXPECT_EQ(clip_side(s, 1.3, 3), ClipSide::high);
    EXPECT_EQ(clip_side(s, 0.7, -3), ClipSide::low);
    EXPECT_EQ(clip_side(s, 0.7, 3), ClipSide::none);
}

TEST(PolicyFormulas, RatioOfOneAndAdvantageOfZero) {
    for (const auto& [name, loss] : losses) {
        SCOPED_TRACE(name);
        PolicySettings s{.loss = loss};
        // The starting policy: the plain policy gradient. cispo's bound is not around 1, so it needs its own.
        if (loss == PolicyLoss::cispo) s.epsilon_high = 5;
        const PolicyTermLoss start = policy_term(s, {.logp = -1.5, .old = -1.5, .advantage = 0.8});
        EXPECT_DOUBLE_EQ(start.slope, -0.8);
        EXPECT_EQ(start.ratio, 1);
        // Without an advantage nothing is learned, at any ratio.
        for (const double old : {-1.5, -0.1, -900.0}) {
            const PolicyTermLoss none = policy_term(s, {.logp = -1.5, .old = old, .advantage = 0});
            EXPECT_EQ(none.value, 0);
            EXPECT_EQ(none.slope, 0);
        }
        // The bounds of `clipped` and `sapo` hold for an infinite ratio.
        EXPECT_TRUE(std::isfinite(policy_term(s, {.logp = -1.5, .old = -900, .advantage = 1}).slope));
    }
    EXPECT_EQ(kl_estimate(-2, -2).value, 0);
    EXPECT_EQ(kl_estimate(-2, -2).slope, 0);
    EXPECT_NEAR(kl_estimate(-2, -2 - 1e-9).value, 0.5e-18, 1e-25) << "no cancellation near 0";
}

TEST(PolicyFormulas, EmptySequencesCountInTheDivisorOnly) {
    for (const auto& [name, loss] : losses) {
        const PolicyTotals totals{.terms = 0, .sequences = 2, .max_completion_length = 10};
        EXPECT_TRUE(std::isfinite(term_scale(loss, totals, 0))) << name;
        const PolicySettings s{.loss = loss, .ratio = RatioLevel::sequence, .beta = 0.1};
        EXPECT_TRUE(std::isfinite(policy_sequence(s, {.advantage = 1, .terms = 0, .log_ratio = 0}).value)) << name;
    }
}

}  // namespace
}  // namespace colonnade
