// The losses of pairs against torch's values and gradients (tests/golden/make_preference_golden.py), against central
// differences, and the ops around them against plain loops.

#include "layers/preference_loss.h"

#include <gtest/gtest.h>

#include <map>

#include "engine/io/json.h"
#include "tests/support/device_case.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

const std::map<std::string, PreferenceLoss> names = {{"sigmoid", PreferenceLoss::sigmoid},
                                                     {"robust", PreferenceLoss::robust},
                                                     {"hinge", PreferenceLoss::hinge},
                                                     {"ipo", PreferenceLoss::ipo},
                                                     {"exo_pair", PreferenceLoss::exo_pair},
                                                     {"sigmoid_norm", PreferenceLoss::sigmoid_norm},
                                                     {"nca_pair", PreferenceLoss::nca_pair},
                                                     {"sppo_hard", PreferenceLoss::sppo_hard},
                                                     {"apo_zero", PreferenceLoss::apo_zero},
                                                     {"apo_down", PreferenceLoss::apo_down},
                                                     {"simpo", PreferenceLoss::simpo},
                                                     {"orpo", PreferenceLoss::orpo},
                                                     {"sft", PreferenceLoss::sft}};

PreferenceMix mix_of(std::initializer_list<std::pair<PreferenceLoss, double>> losses) {
    PreferenceMix mix;
    for (const auto& [loss, weight] : losses) {
        mix.losses[mix.count] = loss;
        mix.weights[mix.count++] = weight;
    }
    return mix;
}

TEST(PreferenceFormulas, EqualTorch) {
    const Json golden = read_json_file(golden_file("preference_golden.json"));
    std::map<std::string, int> seen;
    for (const Json& g : golden.at("pairs")) {
        SCOPED_TRACE(g.dump());
        const auto number = [&](const char* key) { return g.at(key).get<double>(); };
        PreferenceMix mix;
        mix.beta = number("beta");
        mix.label_smoothing = number("label_smoothing");
        mix.simpo_gamma = number("simpo_gamma");
        const PairScores pair{number("chosen"),       number("rejected"),      number("ref_chosen"),
                              number("ref_rejected"), number("chosen_length"), number("rejected_length")};
        const PairLoss found = pair_loss(names.at(g.at("loss_type")), mix, pair);
        const auto expect = [&](const char* key, double value) {
            EXPECT_NEAR(value, number(key), 1e-12 * std::max(1.0, std::abs(number(key)))) << key;
        };
        expect("value", found.value);
        expect("d_chosen", found.d_chosen);
        expect("d_rejected", found.d_rejected);
        ++seen[g.at("loss_type")];
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(preference_losses));
}

TEST(PreferenceFormulas, GradientsMatchDifferences) {
    const Philox random{3, 0};
    uint64_t draw = 0;
    for (const auto& [name, loss] : names) {
        for (int repeat = 0; repeat < 20; ++repeat) {
            SCOPED_TRACE(fmt::format("{} {}", name, repeat));
            PreferenceMix mix = mix_of({{loss, 0.7}, {PreferenceLoss::sft, 0.2}});
            mix.beta = 0.05 + 0.4 * random.uniform(draw++);
            mix.label_smoothing = 0.02 + 0.4 * random.uniform(draw++);
            PairScores p{-20 * random.uniform(draw++) - 1, -20 * random.uniform(draw++) - 1, -15, -12, 6, 11};
            const PairLoss at = pair_loss(mix, p);
            const auto slope = [&](double PairScores::*of) {
                PairScores up = p, down = p;
                up.*of += 1e-5;
                down.*of -= 1e-5;
                return (pair_loss(mix, up).value - pair_loss(mix, down).value) / 2e-5;
            };
            EXPECT_NEAR(at.d_chosen, slope(&PairScores::chosen), 1e-8 * std::max(1.0, std::abs(at.d_chosen)));
            EXPECT_NEAR(at.d_rejected, slope(&PairScores::rejected), 1e-8 * std::max(1.0, std::abs(at.d_rejected)));
        }
    }
}

TEST(PreferenceFormulas, UntrainedPolicyHasLossLnTwo) {
    const PairScores same{-20, -31, -20, -31, 5, 7};
    for (const double smoothing : {0.0, 0.3}) {
        PreferenceMix mix = mix_of({{PreferenceLoss::sigmoid, 1}});
        mix.label_smoothing = smoothing;
        EXPECT_DOUBLE_EQ(pair_loss(mix, same).value, std::log(2.0));
        EXPECT_DOUBLE_EQ(pair_loss(mix, same).d_chosen, -0.1 * (0.5 - smoothing));
    }
}

TEST(PreferenceFormulas, StayFiniteForExtremeScores) {
    for (const auto& [name, loss] : names) {
        PreferenceMix mix = mix_of({{loss, 1}});
        mix.label_smoothing = 0.1;
        for (const double far : {-3e4, 0.0, 3e4}) {
            const PairLoss found = pair_loss(mix, {std::min(far - 3e4, 0.0), -3e4, -3e4, -3e4, 10, 10});
            for (const double v : {found.value, found.d_chosen, found.d_rejected})
                EXPECT_TRUE(std::isfinite(v)) << name << " at " << far;
        }
        // Answers with probability 1 under the policy.
        const PairLoss certain = pair_loss(mix, {0, 0, -1, -1, 10, 10});
        EXPECT_TRUE(std::isfinite(certain.value) && std::isfinite(certain.d_chosen)) << name;
    }
}

struct PreferenceLossOnDevice : DeviceCase {};

/// Places of each value in `values`, as TermsOfTargets and PairTable list them.
std::pair<std::vector<int32_t>, std::vector<int32_t>> lists_of(const std::vector<int32_t>& values, int64_t count) {
    std::vector<int32_t> begins = {0}, entries;
    for (int32_t value = 0; value < count; ++value) {
        for (size_t i = 0; i < values.size(); ++i)
            if (values[i] == value) entries.push_back(static_cast<int32_t>(i));
        begins.push_back(static_cast<int32_t>(entries.size()));
    }
    return {begins, entries};
}

/// Sequences that learn 1 to 90 of the targets each, and pairs of them. A target may be learned by several sequences or
/// by none, and a sequence may be in several pairs or in none.
TEST_P(PreferenceLossOnDevice, GoesFromTokensToPairsAndBack) {
    for (const int64_t pairs : {0, 1, 3, 700}) {
        SCOPED_TRACE(pairs);
        release();
        const Philox random{5, static_cast<uint64_t>(pairs)};
        uint64_t at = 0;
        const auto draw = [&](int64_t n) { return static_cast<int32_t>(random.below(at++, static_cast<uint64_t>(n))); };
        const int64_t sequences = 2 * pairs - (pairs > 1), targets = 20 * sequences;
        std::vector<int32_t> term_begins = {0}, term_targets, term_sequences, both;
        std::vector<double> weight, nll, length, reference, pair_weight;
        for (int64_t i = 0; i < targets; ++i) nll.push_back(4 * random.uniform(at++));
        for (int32_t s = 0; s < sequences; ++s) {
            double sum = 0;
            for (int32_t n = 1 + draw(90); n > 0; --n) {
                term_targets.push_back(draw(targets));
                term_sequences.push_back(s);
                weight.push_back(n % 5 ? 1 : 0.5);
                sum += weight.back();
            }
            term_begins.push_back(static_cast<int32_t>(term_targets.size()));
            length.push_back(sum);
            reference.push_back(-80 * random.uniform(at++));
        }
        for (int64_t p = 0; p < pairs; ++p) {
            const int32_t better = draw(sequences);
            both.insert(both.end(), {better, (better + 1 + draw(sequences - 1)) % static_cast<int32_t>(sequences)});
            pair_weight.push_back(p % 3 ? 1 : 0.25 * (1 + draw(8)));
        }
        const auto [target_begins, by_target] = lists_of(term_targets, targets);
        const auto [pair_begins, sides] = lists_of(both, sequences);

        const int64_t terms = std::ssize(term_targets);
        const std::vector<float> weights_f32(weight.begin(), weight.end());
        const Twin nll_t = twin(DType::f64, {targets}, nll);
        const Twin weights{twin(DType::f32, {terms}, weight).device, view_of(weights_f32)};
        const Twin begins_t = indices(term_begins), targets_t = indices(term_targets);
        const Twin sequences_t = indices(term_sequences), target_begins_t = indices(target_begins);
        const Twin by_target_t = indices(by_target), pair_begins_t = indices(pair_begins), sides_t = indices(sides);
        const Twin lengths = twin(DType::f64, {sequences}, length), ref = twin(DType::f64, {sequences}, reference);
        const Twin pair_list = twin(DType::i32, {pairs, 2}, std::vector<double>(both.begin(), both.end()));
        const std::vector<float> pair_weight_f32(pair_weight.begin(), pair_weight.end());
        const Twin pair_weights{twin(DType::f32, {pairs}, pair_weight).device, view_of(pair_weight_f32)};
        const Twin logps = poisoned(DType::f64, {sequences}), coefficients = poisoned(DType::f64, {sequences});
        const Twin slopes = poisoned(DType::f64, {pairs, 2}), scales = poisoned(DType::f64, {targets});
        const Twin sums = twin(DType::f64, {PairSums::count}, std::vector<double>(PairSums::count, 3));
        const Twin evaluated = twin(DType::f64, {PairSums::count}, std::vector<double>(PairSums::count, 3));
        PreferenceMix mix =
            mix_of({{PreferenceLoss::sigmoid, 1}, {PreferenceLoss::ipo, 0.01}, {PreferenceLoss::sft, 0.2}});
        mix.label_smoothing = 0.1;
        const double scale = 1.0 / 1024;
        run([&](const Context& ctx, auto of) {
            const TermTable table{.begins = of(begins_t),
                                  .sequences = of(sequences_t),
                                  .targets = of(targets_t),
                                  .weights = of(weights),
                                  .of_targets = {of(target_begins_t), of(by_target_t)}};
            sequence_log_probabilities(ctx, {.logps = of(logps), .nll = of(nll_t), .terms = table});
            PreferencePairs args{.sums = of(sums),
                                 .coefficients = of(coefficients),
                                 .slopes = of(slopes),
                                 .logps = of(logps),
                                 .reference = of(ref),
                                 .lengths = of(lengths),
                                 .table = {.pairs = of(pair_list),
                                           .weights = of(pair_weights),
                                           .begins = of(pair_begins_t),
                                           .sides = of(sides_t)},
                                 .mix = mix,
                                 .scale = scale};
            preference_loss(ctx, args);
            args.sums = of(evaluated);
            args.coefficients = {};
            preference_loss(ctx, args);
            target_coefficients(ctx, {.scales = of(scales), .coefficients = of(coefficients), .terms = table});
        });
        // Loops over the definition; the device sums 90 numbers of one sign in another order.
        std::vector<double> l(static_cast<size_t>(sequences)), slope(l.size()), scaled(nll.size());
        for (size_t t = 0; t < weight.size(); ++t)
            l[static_cast<size_t>(term_sequences[t])] -= weight[t] * nll[static_cast<size_t>(term_targets[t])];
        std::vector<double> total(PairSums::count, 3);
        for (size_t p = 0; p < static_cast<size_t>(pairs); ++p) {
            const auto c = static_cast<size_t>(both[2 * p]), r = static_cast<size_t>(both[2 * p + 1]);
            const PairLoss loss = pair_loss(mix, {l[c], l[r], reference[c], reference[r], length[c], length[r]});
            const double w = pair_weight[p];
            slope[c] += scale * w * loss.d_chosen;
            slope[r] += scale * w * loss.d_rejected;
            const double reward_c = 0.1 * (l[c] - reference[c]), reward_r = 0.1 * (l[r] - reference[r]);
            const double own[] = {w * loss.value, w,    double(reward_c > reward_r), reward_c, reward_r,
                                  l[c],           l[r], -l[c] / length[c],           1};
            for (size_t k = 0; k < PairSums::count; ++k) total[k] += own[k];
        }
        const auto expect_near = [&](const char* name, const Twin& t, const std::vector<double>& expected) {
            for (const Tensor& tensor : {t.device, t.exact}) {
                const std::vector<double> found = read(tensor);
                ASSERT_EQ(found.size(), expected.size()) << name;
                for (size_t i = 0; i < found.size(); ++i)
                    ASSERT_NEAR(found[i], expected[i], 1e-12 * std::max(1.0, std::abs(expected[i])))
                        << name << " " << i;
            }
        };
        expect_near("logps", logps, l);
        expect_near("coefficients", coefficients, slope);
        expect_near("sums", sums, total);
        EXPECT_EQ(read(evaluated.device), read(sums.device));
        for (size_t t = 0; t < weight.size(); ++t)
            scaled[static_cast<size_t>(term_targets[t])] -= slope[static_cast<size_t>(term_sequences[t])] * weight[t];
        expect_near("scales", scales, scaled);
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, PreferenceLossOnDevice, every_device(), name_of_device);

TEST(PreferenceLoss, RefusesBadInput) {
    std::vector<double> sums(PairSums::count), logps(2), lengths(2, 1.0);
    std::vector<int32_t> pairs = {0, 2}, begins(3), sides = {0, 1};
    std::vector<float> weights = {1};
    PreferencePairs args{.sums = tensor_of(sums, {PairSums::count}),
                         .logps = tensor_of(logps, {2}),
                         .lengths = tensor_of(lengths, {2}),
                         .table = {.pairs = tensor_of(pairs, {1, 2}),
                                   .weights = tensor_of(weights, {1}),
                                   .begins = tensor_of(begins, {3}),
                                   .sides = tensor_of(sides, {2})},
                         .mix = mix_of({{PreferenceLoss::simpo, 1}}),
                         .scale = 1};
    expect_error(Exit::internal, "pair 0 has sequence 2 of 2", [&] { preference_loss({}, args); });
    args.mix = mix_of({{PreferenceLoss::sigmoid, 1}});
    expect_error(Exit::internal, "no reference is given", [&] { preference_loss({}, args); });
}

}  // namespace
}  // namespace colonnade
