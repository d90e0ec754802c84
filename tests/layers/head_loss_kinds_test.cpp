// What the head learns besides the nll of given scales: dft, policy terms, a teacher.

#include "engine/io/json.h"
#include "layers/head_loss.h"
#include "tests/support/device_case.h"
#include "tests/support/paths.h"
#include "tests/support/small_head.h"
#include "tests/support/term_lists.h"

namespace colonnade {
namespace {

TEST(HeadLossKinds, DftEqualsTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    const Json& given = golden.at("head");
    const auto flat = [](const Json& rows) {
        std::vector<double> all;
        for (const auto& row : rows)
            for (const auto& x : row) all.push_back(x);
        return all;
    };
    const TermLists lists(given.at("sequences"), static_cast<int32_t>(given.at("tokens").size()));
    Head<double> head(std::ssize(lists.target_begins) - 1, 4, 9, 3);
    head.hidden = flat(given.at("hidden"));
    head.weight = flat(given.at("weight"));
    head.targets = given.at("tokens").get<std::vector<int32_t>>();
    for (size_t i = 0; i < head.scales.size(); ++i)
        head.scales[i] = (lists.target_begins[i + 1] - lists.target_begins[i]) / lists.total();
    HeadLoss args = head.args();
    args.token_loss = TokenLoss::dft;
    head_loss({}, args);
    const Json& g = golden.at("head_cases").back();
    ASSERT_EQ(g.at("loss"), "dft");
    double value = 0;
    for (size_t i = 0; i < head.nll.size(); ++i) value += head.scales[i] * std::exp(-head.nll[i]) * head.nll[i];
    EXPECT_NEAR(value, g.at("value").get<double>(), 1e-14);
    expect_close(head.dhidden, flat(g.at("dhidden")), 16);
    expect_close(head.dweight, flat(g.at("dweight")), 16);
}

/// The formulas equal TRL's (distillation_formulas_test).
TEST(HeadLossKinds, LearnsFromATeacherAsTheFormulasSay) {
    const std::vector<double> logits = {0.3, -1.2, 0.8, 1.1, -0.4};
    const std::vector<int32_t> ids = {3, 0, -1};
    const std::vector<float> log_probs = {std::log(0.5f), std::log(0.2f), std::nanf("")};
    const std::vector<double> teacher(log_probs.begin(), log_probs.begin() + 2);
    for (const double beta : {0.0, 0.3, 1.0})
        for (const auto& [temperature, weight, target_weight] :
             {std::tuple(1.0, 1.0, 0.0), std::tuple(2.0, 1.0, 0.0), std::tuple(1.0, 0.75, 0.5),
              std::tuple(1.0, 0.0, 1.0)}) {
            Head<double> head = one_row(logits);
            std::vector<double> divergence(1);
            head.scales = {0.25};
            HeadLoss args = head.args();
            args.teacher = TeacherTokens{.divergences = view_of(divergence),
                                         .ids = view_of(ids).view({1, 3}),
                                         .log_probs = view_of(log_probs).view({1, 3}),
                                         .beta = beta,
                                         .weight = weight,
                                         .target_weight = target_weight};
            args.temperature = temperature;
            head_loss({}, args);
            std::vector<double> cool, student, slopes(2), expected;
            for (const double logit : logits) cool.push_back(logit / temperature);
            const double log_total = log_sum_exp(cool.data(), 5);
            for (const size_t id : {3, 0}) student.push_back(cool[id] - log_total);
            const DistillationLoss loss = distillation_loss(beta, {teacher.data(), student.data(), 2}, slopes.data());
            const double softmax_slope = target_weight - weight * loss.slope_sum;
            for (const double logit : cool) expected.push_back(softmax_slope * std::exp(logit - log_total));
            expected[3] += weight * slopes[0];
            expected[0] += weight * slopes[1];
            expected[static_cast<size_t>(head.targets[0])] -= target_weight;
            EXPECT_NEAR(divergence[0], loss.value, 1e-15);
            for (size_t v = 0; v < expected.size(); ++v)
                EXPECT_NEAR(head.dweight[v], 0.25 / temperature * expected[v], 1e-15) << v;
        }
}

TEST(HeadLossKinds, RefusesATeacherOfOtherTokens) {
    Head<float> head(4, 5, 13, 2);
    std::vector<double> divergences(4);
    const std::vector<int32_t> ids = {0, 12, 13, 1};
    const std::vector<float> log_probs(4);
    HeadLoss args = head.args();
    args.teacher = TeacherTokens{.divergences = view_of(divergences),
                                 .ids = view_of(ids).view({4, 1}),
                                 .log_probs = view_of(log_probs).view({4, 1})};
    expect_error(Exit::data, "target 2: token 13 of the teacher is outside the vocabulary [0, 13)",
                 [&] { head_loss({}, args); });
}

struct HeadLossKindsOnDevice : DeviceCase {};

// Targets with no term, one and several; a term of weight 0 alone; and scales times probabilities.
TEST_P(HeadLossKindsOnDevice, ScalesFromLossesEqualDouble) {
    constexpr int64_t rows = 7, width = 8, vocab = 1001, chunk = 3;
    std::vector<double> unit(rows * width);
    for (size_t i = 0; i < rows; ++i) unit[i * width + i] = 1;
    const Twin hidden = twin(dtype(), {rows, width}, unit), weight = values({vocab, width}, 5);
    const Twin target = indices({5, 1000, 0, 77, 500, 6, 9});
    const Twin scale = twin(DType::f64, {rows}, {0.25, 1, 0, 0.125, 1e-3, 1, 0.5});
    const TermLists lists({{0, 1, 3}, {0, 1, 4}, {5, 0}, {6}}, rows, [](size_t t) { return t == 6 ? 0 : 1; });
    // A log-probability is near -7.4.
    const std::vector<float> advantages = {1, 1, 1, -2, -2, -2, 3, 0.5f, 0.5f};
    const std::vector<float> old = {-7.3f, -7.5f, -8, -7, -7.4f, -8, -1e9f, -7, -6};
    const std::vector<float> reference = {-7, -8, -7, -7, -7, -8, -8, -7.5f, -7};
    const Twin begins = indices(lists.begins), sequences = indices(lists.sequences), targets = indices(lists.targets);
    const Twin target_begins = indices(lists.target_begins), target_terms = indices(lists.target_terms);
    const Twin lengths = twin(DType::f64, {4}, lists.lengths);
    const auto single = [&](const std::vector<float>& v) {
        return Twin{twin(DType::f32, {9}, std::vector<double>(v.begin(), v.end())).device, view_of(v)};
    };
    const Twin weights = single(lists.weights), a = single(advantages), o = single(old), f = single(reference);
    const auto zeros = [&] { return twin(sum_dtype(dtype()), {vocab, width}, std::vector<double>(vocab * width)); };
    const Twin dft = zeros(), policy = zeros(), nll = poisoned(DType::f64, {rows}), logits = output({chunk, vocab});
    run([&](const Context& ctx, auto of) {
        HeadLoss args{.nll = of(nll),
                      .dweight = of(dft),
                      .logits = of(logits),
                      .hidden = of(hidden),
                      .weight = of(weight),
                      .targets = of(target),
                      .scales = of(scale),
                      .token_loss = TokenLoss::dft};
        head_loss(ctx, args);
        args.scales = {};
        args.token_loss = TokenLoss::nll;
        args.dweight = of(policy);
        args.policy = PolicyTerms{.table = {.begins = of(begins),
                                            .sequences = of(sequences),
                                            .targets = of(targets),
                                            .weights = of(weights),
                                            .of_targets = {of(target_begins), of(target_terms)}},
                                  .lengths = of(lengths),
                                  .advantages = of(a),
                                  .old = of(o),
                                  .reference = of(f),
                                  .settings = {.loss = PolicyLoss::sapo, .beta = 0.1},
                                  .totals = {8, 4}};
        head_loss(ctx, args);
    });
    // nll has an absolute error of 128 roundings; slopes by x are below 3.
    const double nll_error = 3 * 128 * f32_rounding;
    expect_close("dft", dft, {.relative = rounding() + 256 * f32_rounding, .absolute = nll_error});
    expect_close("policy", policy, {.relative = rounding() + 256 * f32_rounding, .absolute = nll_error});
    const auto gradient = read(policy.device), by_dft = read(dft.device);
    for (size_t v = 0; v < vocab; ++v) {
        ASSERT_EQ(by_dft[v * width + 2], 0);
        ASSERT_EQ(gradient[v * width + 2], 0) << "no term";
        ASSERT_EQ(gradient[v * width + 5], 0) << "weight 0";
    }
    EXPECT_GT(std::abs(gradient[5 * width]), 0.05);
}

// Lists that are full, short and empty, and a row of weight 0.
TEST_P(HeadLossKindsOnDevice, LearnsFromATeacherAsInDouble) {
    constexpr int64_t rows = 5, width = 8, vocab = 1001, k = 40;
    std::vector<double> unit(rows * width), log_probs;
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < rows; ++i) {
        unit[static_cast<size_t>(i * width + i)] = 1;
        for (int32_t j = 0; j < k; ++j) {
            ids.push_back(i == 3 || (i == 1 && j >= 3) ? -1 : (j * 37 + i) % 1001);
            log_probs.push_back(-1.0 - j);
        }
    }
    const std::vector<float> given(log_probs.begin(), log_probs.end());
    const Twin hidden = twin(dtype(), {rows, width}, unit), weight = values({vocab, width}, 5);
    const Twin target = indices({5, 1, 2, 77, 500}), scale = twin(DType::f64, {rows}, {0.25, 1, 0, 0.5, 0.125});
    const Twin ids_t = indices(ids).view({rows, k});
    const Twin given_t{twin(DType::f32, {rows, k}, log_probs).device, view_of(given).view({rows, k})};
    // The targets of rows 1 and 2 are in their lists.
    for (const auto& [beta, divergence_weight, target_weight] :
         {std::tuple(0.0, 1.0, 0.0), std::tuple(0.4, 1.0, 0.0), std::tuple(1.0, 1.0, 0.0),
          std::tuple(0.4, 0.75, 0.5)}) {
        const Twin gradient = twin(sum_dtype(dtype()), {vocab, width}, std::vector<double>(vocab * width));
        const Twin divergences = poisoned(DType::f64, {rows}), nll = poisoned(DType::f64, {rows});
        const Twin evaluated = poisoned(DType::f64, {rows}), logits = output({2, vocab});
        run([&](const Context& ctx, auto of) {
            HeadLoss args{.nll = of(nll),
                          .dweight = of(gradient),
                          .logits = of(logits),
                          .hidden = of(hidden),
                          .weight = of(weight),
                          .targets = of(target),
                          .scales = of(scale),
                          .teacher = TeacherTokens{.divergences = of(divergences),
                                                   .ids = of(ids_t),
                                                   .log_probs = of(given_t),
                                                   .beta = beta,
                                                   .weight = divergence_weight,
                                                   .target_weight = target_weight}};
            head_loss(ctx, args);
            args.dweight = args.scales = {};
            args.teacher->divergences = of(evaluated);
            head_loss(ctx, args);
        });
        // As for other losses; slopes by x are below 10.
        expect_close("divergences", divergences, {.relative = 0, .absolute = 10 * 128 * f32_rounding});
        EXPECT_EQ(read(evaluated.device), read(divergences.device));
        EXPECT_GT(read(divergences.device)[0], 0.1);
        EXPECT_EQ(read(divergences.device)[3], 0);
        expect_close("gradient", gradient,
                     {.relative = rounding() + 256 * f32_rounding, .absolute = 10 * 128 * f32_rounding});
        const auto found = read(gradient.device);
        for (size_t v = 0; v < vocab; ++v) {
            ASSERT_EQ(found[v * width + 2], 0) << "weight 0";
            ASSERT_TRUE(target_weight > 0 || found[v * width + 3] == 0) << "no list";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, HeadLossKindsOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
