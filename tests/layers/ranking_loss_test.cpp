// The losses of rankings against torch's values and gradients (tests/golden/make_preference_golden.py) and central
// differences; the score head against plain loops and central differences.

#include "layers/ranking_loss.h"

#include <gtest/gtest.h>

#include "engine/io/json.h"
#include "layers/score_head.h"
#include "tests/support/device_case.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

TEST(RankingFormulas, EqualTorch) {
    const Json golden = read_json_file(golden_file("preference_golden.json"));
    int seen = 0;
    for (const Json& g : golden.at("rankings")) {
        SCOPED_TRACE(g.dump());
        const auto scores = g.at("scores").get<std::vector<double>>(),
                   slopes = g.at("slopes").get<std::vector<double>>();
        const RankingKind kind = g.at("kind") == "pairwise" ? RankingKind::pairwise : RankingKind::plackett_luce;
        const auto k = static_cast<int32_t>(scores.size());
        std::vector<double> d(scores.size(), std::nan(""));
        const RankingSums sums = rank_answers({kind, g.at("center"), 0.25}, scores.data(), k, g.at("margin"), d.data());
        EXPECT_NEAR(sums.of[RankingSums::loss], g.at("value").get<double>(), 1e-12);
        for (size_t i = 0; i < d.size(); ++i) EXPECT_NEAR(d[i], 0.25 * slopes[i], 1e-13) << i;
        ++seen;
    }
    EXPECT_EQ(seen, 36);
}

TEST(RankingFormulas, GradientsMatchDifferences) {
    for (const RankingKind kind : {RankingKind::pairwise, RankingKind::plackett_luce}) {
        auto scores = random_values<double>(6, 4);
        const auto loss = [&] {
            std::vector<double> d(6);
            return rank_answers({kind, 0.2, 1}, scores.data(), 6, kind == RankingKind::pairwise ? 0.3 : 0, d.data())
                .of[RankingSums::loss];
        };
        std::vector<double> d(6);
        rank_answers({kind, 0.2, 1}, scores.data(), 6, kind == RankingKind::pairwise ? 0.3 : 0, d.data());
        expect_gradient("scores", scores, d, loss, 1e-8);
    }
}

TEST(RankingFormulas, StayFiniteForExtremeScores) {
    for (const RankingKind kind : {RankingKind::pairwise, RankingKind::plackett_luce})
        for (const auto& scores : {std::vector<double>{1e4, -1e4, 3}, {-1e4, 1e4, 1e4}}) {
            std::vector<double> d(3);
            EXPECT_TRUE(std::isfinite(rank_answers({kind, 0.01, 1}, scores.data(), 3, 0, d.data()).of[0]));
            for (const double v : d) EXPECT_TRUE(std::isfinite(v));
        }
}

struct RankingOnDevice : DeviceCase {};

TEST_P(RankingOnDevice, SumsOverSamplesOfAnySize) {
    for (const int64_t samples : {0, 1, 5, 900}) {
        for (const RankingKind kind : {RankingKind::pairwise, RankingKind::plackett_luce}) {
            SCOPED_TRACE(samples);
            release();
            std::vector<int32_t> begins = {0};
            std::vector<double> margin;
            const Philox random{8, 1};
            for (int64_t s = 0; s < samples; ++s) {
                begins.push_back(begins.back() + 1 + static_cast<int32_t>(random.below(static_cast<uint64_t>(s), 5)));
                margin.push_back(kind == RankingKind::pairwise && s % 2 ? 0.5 : 0);
            }
            const int64_t answers = begins.back();
            const Twin scores = twin(DType::f64, {answers}, random_values<double>(answers, 9));
            const std::vector<float> margins_f32(margin.begin(), margin.end());
            const Twin begins_t = indices(begins);
            const Twin margins{twin(DType::f32, {samples}, margin).device, view_of(margins_f32)};
            const Twin dscores = poisoned(DType::f64, {answers});
            const Twin sums = twin(DType::f64, {RankingSums::count}, std::vector<double>(RankingSums::count, 2));
            const Twin extremes = twin(DType::f64, {2}, {-HUGE_VAL, 0.5});
            run([&](const Context& ctx, auto of) {
                ranking_loss(ctx, {.sums = of(sums),
                                   .extremes = of(extremes),
                                   .dscores = of(dscores),
                                   .scores = of(scores),
                                   .sample_begins = of(begins_t),
                                   .margins = of(margins),
                                   .kind = kind,
                                   .center = 0.01,
                                   .scale = 0.125});
            });
            expect_close("dscores", dscores, {.relative = 1e-12, .absolute = 1e-15});
            expect_close("sums", sums, {.relative = 1e-12, .absolute = 1e-12});
            const std::vector<double> r = read(scores.exact), d = read(dscores.device);
            double lowest = HUGE_VAL, highest = 0.5, compared = 2, correct = 2, loss = 2;
            for (size_t s = 0; s < static_cast<size_t>(samples); ++s) {
                const auto first = static_cast<size_t>(begins[s]), last = static_cast<size_t>(begins[s + 1]);
                if (last - first < 2) {
                    EXPECT_EQ(d[first], 0);
                    continue;
                }
                compared += 1;
                double right = 0, pairs = 0;
                for (size_t i = first; i < last; ++i) {
                    lowest = std::min(lowest, r[i]);
                    highest = std::max(highest, r[i]);
                    for (size_t j = i + 1; j < last; ++j) right += r[i] > r[j], pairs += 1;
                }
                correct += right / pairs;
                std::vector<double> slopes(last - first);
                loss += rank_answers({kind, 0.01, 0.125}, r.data() + first, static_cast<int32_t>(last - first),
                                     margin[s], slopes.data())
                            .of[RankingSums::loss];
                for (size_t i = first; i < last; ++i) EXPECT_NEAR(d[i], slopes[i - first], 1e-14);
            }
            const std::vector<double> found = read(sums.device);
            EXPECT_NEAR(found[RankingSums::loss], loss, 1e-11 * loss);
            EXPECT_EQ(found[RankingSums::samples], compared);
            EXPECT_NEAR(found[RankingSums::correct], correct, 1e-11 * correct);
            EXPECT_EQ(read(extremes.device), (std::vector<double>{-lowest, highest}));
        }
    }
}

TEST_P(RankingOnDevice, ScoreHeadEqualsDouble) {
    for (const int64_t width : {8, 264, 4096}) {
        for (const int64_t answers : {0, 1, 37}) {
            SCOPED_TRACE(fmt::format("{} x {}", answers, width));
            release();
            const Twin hidden = values({answers, width}, 1), weight = values({1, width}, 2);
            const Twin dscores = twin(DType::f64, {answers}, random_values<double>(answers, 3));
            const Twin scores = poisoned(DType::f64, {answers}), dhidden = output({answers, width});
            const Twin dweight = sums({1, width}, 4);
            run([&](const Context& ctx, auto of) {
                score_forward(ctx, {.scores = of(scores), .hidden = of(hidden), .weight = of(weight)});
                score_backward(ctx, {.dhidden = of(dhidden),
                                     .dweight = of(dweight),
                                     .dscores = of(dscores),
                                     .hidden = of(hidden),
                                     .weight = of(weight)});
            });
            expect_close("scores", scores, {.relative = 1e-12, .absolute = 1e-11});
            expect_close("dhidden", dhidden, {.relative = rounding()});
            expect_close("dweight", dweight, {.relative = 2 * f32_rounding, .absolute = 32 * f32_rounding});
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, RankingOnDevice, every_device(), name_of_device);

TEST(ScoreHead, GradientsMatchDifferences) {
    auto hidden = random_values<double>(5 * 7, 1), weight = random_values<double>(7, 2),
         d = random_values<double>(5, 3);
    std::vector<double> scores(5), dhidden(35), dweight(7);
    const auto forward = [&] {
        score_forward({}, {.scores = tensor_of(scores, {5}),
                           .hidden = tensor_of(hidden, {5, 7}),
                           .weight = tensor_of(weight, {1, 7})});
        return inner_product(scores, d);
    };
    score_backward({}, {.dhidden = tensor_of(dhidden, {5, 7}),
                        .dweight = tensor_of(dweight, {1, 7}),
                        .dscores = tensor_of(d, {5}),
                        .hidden = tensor_of(hidden, {5, 7}),
                        .weight = tensor_of(weight, {1, 7})});
    expect_gradient("hidden", hidden, dhidden, forward);
    expect_gradient("weight", weight, dweight, forward);
}

}  // namespace
}  // namespace colonnade
