// The losses of rankings against torch's values and gradients (tests/golden/make_preference_golden.py) and central
// differences; the score head against plain loops and central differences.

#include "layers/ranking_loss.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/io/json.h"
#include "layers/score_head.h"
#include "tests/support/device_case.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

/// One ranking of all scores, best first. All pairs have the same weight.
RankingSums rank(const RankingSettings& settings, const std::vector<double>& scores, double margin,
                 std::vector<double>& slopes, float weight = 1) {
    const auto k = static_cast<int32_t>(scores.size());
    std::vector<int32_t> places(scores.size()), pairs;
    std::iota(places.begin(), places.end(), 0);
    for (int32_t i = 0; i < k; ++i)
        for (int32_t j = i + 1; j < k; ++j) pairs.insert(pairs.end(), {i, j});
    const std::vector<float> margins(pairs.size() / 2, static_cast<float>(margin)), weights(margins.size(), weight);
    return rank_answers(settings, {scores.data(), slopes.data(), places.data(), 0, k, pairs.data(), margins.data(),
                                   weights.data(), static_cast<int32_t>(margins.size())});
}

TEST(RankingFormulas, EqualTorch) {
    const Json golden = read_json_file(golden_file("preference_golden.json"));
    int seen = 0;
    for (const Json& g : golden.at("rankings")) {
        SCOPED_TRACE(g.dump());
        const auto scores = g.at("scores").get<std::vector<double>>(),
                   slopes = g.at("slopes").get<std::vector<double>>();
        const RankingKind kind = g.at("kind") == "pairwise" ? RankingKind::pairwise : RankingKind::plackett_luce;
        std::vector<double> d(scores.size(), std::nan(""));
        const RankingSums sums = rank({kind, g.at("center"), 0.25}, scores, g.at("margin"), d);
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
            return rank({kind, 0.2, 1}, scores, kind == RankingKind::pairwise ? 0.3 : 0, d).of[RankingSums::loss];
        };
        std::vector<double> d(6);
        rank({kind, 0.2, 1}, scores, kind == RankingKind::pairwise ? 0.3 : 0, d);
        expect_gradient("scores", scores, d, loss, 1e-8);
    }
}

TEST(RankingFormulas, StayFiniteForExtremeScores) {
    for (const RankingKind kind : {RankingKind::pairwise, RankingKind::plackett_luce})
        for (const auto& scores : {std::vector<double>{1e4, -1e4, 3}, {-1e4, 1e4, 1e4}}) {
            std::vector<double> d(3);
            EXPECT_TRUE(std::isfinite(rank({kind, 0.01, 1}, scores, 0, d).of[0]));
            for (const double v : d) EXPECT_TRUE(std::isfinite(v));
        }
}

struct RankingOnDevice : DeviceCase {};

/// Samples of 1 to 5 answers whose scores lie anywhere, with all of their pairs or some of them.
TEST_P(RankingOnDevice, SumsOverSamplesOfAnySize) {
    for (const int64_t samples : {0, 1, 5, 900}) {
        for (const RankingKind kind : {RankingKind::pairwise, RankingKind::plackett_luce}) {
            SCOPED_TRACE(samples);
            release();
            std::vector<int32_t> begins = {0}, pair_begins = {0}, pairs, places;
            std::vector<double> margin, weight;
            const Philox random{8, 1};
            uint64_t at = 0;
            for (int64_t s = 0; s < samples; ++s) {
                const int32_t first = begins.back(), k = 1 + static_cast<int32_t>(random.below(at++, 5));
                begins.push_back(first + k);
                for (int32_t i = 0; i < k; ++i)
                    for (int32_t j = i + 1; j < k; ++j) {
                        if (s % 3 == 2 && j > i + 1) continue;  // of every third sample only those of neighbours
                        pairs.insert(pairs.end(), {first + i, first + j});
                        margin.push_back(kind == RankingKind::pairwise && s % 2 ? 0.25 * (j - i) : 0);
                        weight.push_back(s % 3 == 2 ? 0.5 * (1 + j) : 1 + s % 4);
                    }
                pair_begins.push_back(static_cast<int32_t>(margin.size()));
            }
            const int64_t answers = begins.back(), pair_count = std::ssize(margin);
            places.resize(static_cast<size_t>(answers));
            std::iota(places.begin(), places.end(), 0);
            for (size_t i = places.size(); i > 1; --i) std::swap(places[i - 1], places[random.below(at++, i)]);
            const Twin scores = twin(DType::f64, {answers}, random_values<double>(answers, 9));
            const std::vector<float> margins_f32(margin.begin(), margin.end());
            const Twin begins_t = indices(begins), pair_begins_t = indices(pair_begins), places_t = indices(places);
            const Twin pairs_t = twin(DType::i32, {pair_count, 2}, std::vector<double>(pairs.begin(), pairs.end()));
            const Twin margins{twin(DType::f32, {pair_count}, margin).device, view_of(margins_f32)};
            const std::vector<float> weights_f32(weight.begin(), weight.end());
            const Twin weights{twin(DType::f32, {pair_count}, weight).device, view_of(weights_f32)};
            const Twin dscores = poisoned(DType::f64, {answers});
            const Twin sums = twin(DType::f64, {RankingSums::count}, std::vector<double>(RankingSums::count, 2));
            const Twin extremes = twin(DType::f64, {2}, {-HUGE_VAL, 0.5});
            run([&](const Context& ctx, auto of) {
                ranking_loss(ctx, {.sums = of(sums),
                                   .extremes = of(extremes),
                                   .dscores = of(dscores),
                                   .scores = of(scores),
                                   .places = of(places_t),
                                   .sample_begins = of(begins_t),
                                   .pairs = of(pairs_t),
                                   .pair_begins = of(pair_begins_t),
                                   .margins = of(margins),
                                   .weights = of(weights),
                                   .kind = kind,
                                   .center = 0.01,
                                   .scale = 0.125});
            });
            expect_close("dscores", dscores, {.relative = 1e-12, .absolute = 1e-15});
            expect_close("sums", sums, {.relative = 1e-12, .absolute = 1e-12});
            const std::vector<double> r = read(scores.exact), d = read(dscores.device);
            const auto place = [&](size_t answer) { return static_cast<size_t>(places[answer]); };
            double lowest = HUGE_VAL, highest = 0.5, compared = 2, correct = 2, total = 2;
            for (size_t s = 0; s < static_cast<size_t>(samples); ++s) {
                const auto first = static_cast<size_t>(begins[s]), last = static_cast<size_t>(begins[s + 1]);
                const auto pair = static_cast<size_t>(pair_begins[s]), end = static_cast<size_t>(pair_begins[s + 1]);
                if (pair == end) {
                    EXPECT_EQ(d[place(first)], 0);
                    continue;
                }
                compared += 1;
                std::vector<double> own, slopes(last - first);
                for (size_t i = first; i < last; ++i) {
                    own.push_back(r[place(i)]);
                    lowest = std::min(lowest, own.back());
                    highest = std::max(highest, own.back());
                }
                double right = 0;
                for (size_t p = pair; p < end; ++p)
                    right +=
                        r[place(static_cast<size_t>(pairs[2 * p]))] > r[place(static_cast<size_t>(pairs[2 * p + 1]))];
                correct += right / static_cast<double>(end - pair);
                for (size_t p = pair; p < end; ++p) total += weight[p] / static_cast<double>(end - pair);
                if (s % 3 == 2 || s % 2) continue;  // all pairs, one margin and one weight
                rank({kind, 0.01, 0.125}, own, 0, slopes, static_cast<float>(1 + s % 4));
                for (size_t i = first; i < last; ++i) EXPECT_NEAR(d[place(i)], slopes[i - first], 1e-14);
            }
            const std::vector<double> found = read(sums.device);
            EXPECT_EQ(found[RankingSums::samples], compared);
            EXPECT_NEAR(found[RankingSums::weight], total, 1e-12 * total);
            EXPECT_NEAR(found[RankingSums::correct], correct, 1e-11 * correct);
            EXPECT_EQ(read(extremes.device), (std::vector<double>{-lowest, highest}));
        }
    }
}

/// The loss of some pairs is the mean over them of the loss of each alone, times its weight.
TEST(RankingFormulas, SomePairsAreTheMeanOfEachAlone) {
    const std::vector<double> scores = random_values<double>(4, 11);
    const std::vector<int32_t> places = {2, 0, 3, 1}, pairs = {0, 3, 2, 1, 0, 1};
    const std::vector<float> margins = {0.5f, 0, 1}, weights = {1, 0.25f, 3}, ones(3, 1.0f);
    const RankingSettings settings{RankingKind::pairwise, 0.1, 1};
    std::vector<double> whole(4), mean(4), one(4);
    const auto loss = [&](size_t first, size_t count, const std::vector<float>& of, std::vector<double>& slopes) {
        return rank_answers(settings, {scores.data(), slopes.data(), places.data(), 0, 4, &pairs[2 * first],
                                       &margins[first], &of[first], static_cast<int32_t>(count)})
            .of[RankingSums::loss];
    };
    double value = 0;
    for (size_t p = 0; p < margins.size(); ++p) {
        const double share = static_cast<double>(weights[p]) / 3;
        value += share * loss(p, 1, ones, one);
        for (size_t i = 0; i < 4; ++i) mean[i] += share * one[i];
    }
    EXPECT_NEAR(loss(0, 3, weights, whole), value, 1e-15);
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(whole[i], mean[i], 1e-15);
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
