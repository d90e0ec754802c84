#include "layers/head_loss.h"

#include "tests/support/device_case.h"
#include "tests/support/small_head.h"

namespace colonnade {
namespace {

/// The definition, in double.
std::vector<double> oracle_nll(const Head<double>& head, std::vector<uint8_t>& correct) {
    std::vector<double> nll;
    const auto width = static_cast<size_t>(head.width), vocab = static_cast<size_t>(head.vocab);
    correct.clear();
    for (size_t r = 0; r < head.targets.size(); ++r) {
        std::vector<double> logits(vocab);
        double sum = 0;
        for (size_t v = 0; v < vocab; ++v) {
            for (size_t j = 0; j < width; ++j) logits[v] += head.hidden[r * width + j] * head.weight[v * width + j];
            sum += std::exp(logits[v]);
        }
        const double at_target = logits[static_cast<size_t>(head.targets[r])];
        nll.push_back(std::log(sum) - at_target);
        correct.push_back(at_target == *std::ranges::max_element(logits));
    }
    return nll;
}

TEST(HeadLoss, IsNegativeLogLikelihoodInAnyChunks) {
    std::vector<uint8_t> correct;
    const auto expected = oracle_nll(Head<double>(11, 5, 13, 1), correct);
    EXPECT_GT(std::ranges::count(correct, 1), 0);
    EXPECT_LT(std::ranges::count(correct, 1), 11);
    for (const int64_t chunk : {1, 3, 11, 20}) {
        SCOPED_TRACE(chunk);
        Head<double> wide(11, 5, 13, chunk);
        head_loss({}, wide.args());
        expect_close(wide.nll, expected, 8);
        EXPECT_EQ(wide.correct, correct);
        Head<float> single(11, 5, 13, chunk);
        head_loss({}, single.args());
        for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(single.nll[i], expected[i], 2e-6);
        EXPECT_EQ(single.correct, correct);
        expect_close(single.dhidden, wide.dhidden, 16);
        expect_close(single.dweight, wide.dweight, 16);
    }
}

TEST(HeadLoss, GradientsMatchDifferences) {
    Head<double> head(7, 5, 13, 3);
    head_loss({}, head.args());
    const auto dhidden = head.dhidden, dweight = head.dweight;
    const auto loss = [&] {
        head_loss({}, head.evaluation());
        double sum = 0;
        for (size_t i = 0; i < head.nll.size(); ++i) sum += head.scales[i] * head.nll[i];
        return sum;
    };
    expect_gradient("hidden", head.hidden, dhidden, loss);
    expect_gradient("weight", head.weight, dweight, loss);
}

TEST(HeadLoss, WeightGradientAccumulatesAndHiddenIsOverwritten) {
    Head<double> fresh(7, 5, 13, 3), onto(7, 5, 13, 3);
    head_loss({}, fresh.args());
    onto.dhidden.assign(onto.dhidden.size(), std::nan(""));
    onto.dweight = random_values<double>(13 * 5, 3);
    auto expected = onto.dweight;
    head_loss({}, onto.args());
    EXPECT_EQ(onto.dhidden, fresh.dhidden);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += fresh.dweight[i];
    expect_close(onto.dweight, expected, 8);
}

TEST(HeadLoss, OverwritesTheWeightGradient) {
    for (const int64_t chunk : {3, 7}) {
        Head<double> fresh(7, 5, 13, chunk), over(7, 5, 13, chunk);
        head_loss({}, fresh.args());
        over.dweight = random_values<double>(13 * 5, 3);
        HeadLoss args = over.args();
        args.dweight_mode = Grad::overwrite;
        head_loss({}, args);
        EXPECT_EQ(over.dweight, fresh.dweight) << chunk;
    }
}

TEST(HeadLoss, ZeroScaleGivesExactlyZeroGradient) {
    Head<float> head(4, 5, 13, 4);
    head.scales = {0, 1, 0, 0};
    head_loss({}, head.args());
    for (size_t i = 0; i < head.dhidden.size(); ++i)
        if (i / 5 != 1) {
            EXPECT_EQ(head.dhidden[i], 0) << i;
        }
    EXPECT_GT(head.nll[0], 0);  // the loss is still reported
    // A row with scale 0 may even overflow.
    Head<float> huge(4, 5, 13, 4);
    huge.scales = {0, 1, 0, 0};
    std::fill_n(huge.hidden.begin() + 10, 5, 3e38f);
    HeadLoss args = huge.args();
    args.dweight = Tensor();
    head_loss({}, args);
    EXPECT_FALSE(std::isfinite(huge.nll[2]));
    EXPECT_EQ(huge.dhidden, head.dhidden);
}

TEST(HeadLoss, LargeLogitsDoNotOverflow) {
    Head<float> head(1, 1, 4, 1);
    head.hidden = {1};
    head.weight = {1e4f, -1e4f, 9999, 0};
    head.targets = {2};
    head.scales = {1};
    head_loss({}, head.args());
    EXPECT_NEAR(head.nll[0], 1 + std::log1p(std::exp(-1.0)), 1e-6);
    EXPECT_EQ(head.correct[0], 0);
}

TEST(HeadLoss, EvaluationGivesTheSameLossAndTouchesNoGradient) {
    Head<float> trained(11, 5, 13, 4), evaluated(11, 5, 13, 4);
    head_loss({}, trained.args());
    HeadLoss args = evaluated.evaluation();
    args.scales = {};
    args.correct = {};
    head_loss({}, args);
    EXPECT_EQ(evaluated.nll, trained.nll);
    EXPECT_EQ(evaluated.dhidden, std::vector<float>(11 * 5));
    EXPECT_EQ(evaluated.dweight, std::vector<float>(13 * 5));
}

TEST(HeadLoss, EntropyIsThatOfTheSoftmax) {
    const auto entropy_of = [](const std::vector<double>& logits, double temperature) {
        Head<double> head = one_row(logits);
        HeadLoss args = head.evaluation();
        std::vector<double> entropy(1);
        args.entropy = view_of(entropy);
        args.temperature = temperature;
        head_loss({}, args);
        return entropy[0];
    };
    EXPECT_NEAR(entropy_of({2, 2, 2, 2}, 1), std::log(4.0), 1e-15);
    EXPECT_EQ(entropy_of({900, 0, -900}, 1), 0);
    const double p = 1 / (1 + std::exp(-3.0));
    const double expected = -p * std::log(p) - (1 - p) * std::log(1 - p);
    EXPECT_NEAR(entropy_of({-1, 2}, 1), expected, 1e-15);
    EXPECT_NEAR(entropy_of({-2, 4}, 2), expected, 1e-15);
}

TEST(HeadLoss, TemperatureDividesLogits) {
    Head<double> hot(7, 5, 13, 3), scaled(7, 5, 13, 3);
    HeadLoss args = hot.args();
    args.temperature = 2.5;
    head_loss({}, args);
    for (double& x : scaled.weight) x /= 2.5;
    head_loss({}, scaled.args());
    for (double& x : scaled.dweight) x /= 2.5;
    expect_close(hot.nll, scaled.nll, 8);
    expect_close(hot.dhidden, scaled.dhidden, 8);
    expect_close(hot.dweight, scaled.dweight, 8);
}

TEST(HeadLoss, LossHasTheSameBitsWithAnyThreads) {
    expect_same_with_any_threads([] {
        Head<float> head(101, 300, 313, 101);
        head_loss({}, head.args());
        return std::tuple(head.nll, head.dhidden, head.dweight);
    });
}

TEST(HeadLoss, RefusesBadInput) {
    Head<float> head(4, 5, 13, 2);
    head.targets[2] = 13;
    expect_error(Exit::data, "target 2: token 13 is outside the vocabulary [0, 13)",
                 [&] { head_loss({}, head.args()); });
    head.targets[2] = -100;
    expect_error(Exit::data, "target 2: token -100 is outside the vocabulary [0, 13)",
                 [&] { head_loss({}, head.args()); });
    head.targets[2] = 0;
    HeadLoss args = head.args();
    args.logits = args.logits.slice(0, 0, 0);
    expect_error(Exit::internal, "the logits scratch [0, 13] f32 has no row", [&] { head_loss({}, args); });
    args = head.args();
    args.scales = {};
    expect_error(Exit::internal, "head_loss: scales is [] f32 on cpu, expected [4] f64", [&] { head_loss({}, args); });
    args = head.args();
    args.dhidden = args.dhidden.slice(0, 0, 3);
    expect_error(Exit::internal, "head_loss: dhidden is [3, 5] f32 on cpu, expected [4, 5] f32",
                 [&] { head_loss({}, args); });
}

struct HeadLossOnDevice : DeviceCase {};

// Each row of hidden is a unit vector: the logits are columns of the weight, exact in bf16, and row v of the weight's
// gradient is the gradient of the logits of token v.
TEST_P(HeadLossOnDevice, SoftmaxEqualsDouble) {
    constexpr int64_t rows = 7, width = 8, chunk = 3;
    for (const int64_t vocab : {5, 8, 13, 1000, 1001, 32000, 50257, 128256}) {
        SCOPED_TRACE(vocab);
        release();
        auto numbers = random_values<double>(vocab * width, 1);
        for (double& v : numbers) v *= 3;
        std::vector<double> unit(rows * width);
        std::vector<int32_t> targets;
        for (int64_t i = 0; i < rows; ++i) {
            unit[static_cast<size_t>(i * width + i)] = 1;
            // The first, the last and the most likely token, and others.
            int64_t target = i == 0 ? 0 : i == 1 ? vocab - 1 : (i * 977 + 5) % vocab;
            for (int64_t v = 0; i > 4 && v < vocab; ++v)
                if (numbers[static_cast<size_t>(v * width + i)] > numbers[static_cast<size_t>(target * width + i)])
                    target = v;
            targets.push_back(static_cast<int32_t>(target));
        }
        const Twin hidden = twin(dtype(), {rows, width}, unit), weight = twin(dtype(), {vocab, width}, numbers);
        const Twin target = indices(targets), scale = twin(DType::f64, {rows}, {0.25, 1, 0, 0.125, 1e-3, 1, 0.5});
        const Twin nll = poisoned(DType::f64, {rows}), evaluated = poisoned(DType::f64, {rows});
        const Twin correct = twin(DType::u8, {rows}, std::vector<double>(rows, 9)), logits = output({chunk, vocab});
        const Twin entropy = poisoned(DType::f64, {rows});
        const Twin dhidden = output({rows, width});
        const Twin dweight = twin(sum_dtype(dtype()), {vocab, width}, std::vector<double>(vocab * width));
        run([&](const Context& ctx, auto of) {
            head_loss(ctx, {.nll = of(nll),
                            .correct = of(correct),
                            .entropy = of(entropy),
                            .dhidden = of(dhidden),
                            .dweight = of(dweight),
                            .logits = of(logits),
                            .hidden = of(hidden),
                            .weight = of(weight),
                            .targets = of(target),
                            .scales = of(scale)});
            head_loss(ctx, {.nll = of(evaluated),
                            .logits = of(logits),
                            .hidden = of(hidden),
                            .weight = of(weight),
                            .targets = of(target)});
        });
        // Exponentials have an error of some tens of roundings; their sum is at most 64 additions deep.
        expect_close("nll", nll, {.relative = 0, .absolute = 128 * f32_rounding});
        // The sum of p |logit - max| is below 16.
        expect_close("entropy", entropy, {.relative = 0, .absolute = 16 * 128 * f32_rounding});
        expect_close("correct", correct, {});
        EXPECT_EQ(read(correct.device)[6], 1);
        EXPECT_EQ(read(evaluated.device), read(nll.device));
        // Softmax has the rounding error of its exponent, which is below 64; softmax - 1 cancels.
        expect_close("dlogits", dweight, {.relative = rounding() + 256 * f32_rounding, .absolute = 8 * f32_rounding});
        // The sum of |dlogits| of a row is at most 2 scales; weights are below 16.
        const double sum_error = static_cast<double>(vocab) * f32_rounding + rounding();
        expect_close("dhidden", dhidden, {.relative = rounding(), .absolute = 2 * 16 * sum_error});
        const auto gradient = read(dweight.device), passed_on = read(dhidden.device);
        for (size_t v = 0; v < static_cast<size_t>(vocab); ++v) ASSERT_EQ(gradient[v * width + 2], 0) << v;
        for (size_t j = 0; j < width; ++j) ASSERT_EQ(passed_on[2 * width + j], 0) << j;
    }
}

// Logits are rounded to dtype() before the softmax.
TEST_P(HeadLossOnDevice, WholeHeadEqualsDoubleToTheRoundingOfLogits) {
    constexpr int64_t rows = 50, width = 64, vocab = 504, chunk = 24;
    auto numbers = random_values<double>(vocab * width, 1);
    for (double& v : numbers) v /= 8;  // logits of normal size, below 6
    const Twin hidden = values({rows, width}, 2), weight = twin(dtype(), {vocab, width}, numbers);
    std::vector<int32_t> targets;
    for (int32_t i = 0; i < rows; ++i) targets.push_back(i * 31 % vocab);
    const Twin target = indices(targets), scale = twin(DType::f64, {rows}, std::vector<double>(rows, 0.02));
    const Twin nll = poisoned(DType::f64, {rows}), logits = output({chunk, vocab}), dhidden = output({rows, width});
    const Twin dweight = sums({vocab, width}, 3);
    run([&](const Context& ctx, auto of) {
        head_loss(ctx, {.nll = of(nll),
                        .dhidden = of(dhidden),
                        .dweight = of(dweight),
                        .logits = of(logits),
                        .hidden = of(hidden),
                        .weight = of(weight),
                        .targets = of(target),
                        .scales = of(scale)});
    });
    const double logit_error = 6 * rounding() + width * width * f32_rounding;
    expect_close("nll", nll, {.relative = 0, .absolute = 2 * logit_error});
    // The sum of a row's |dlogits| is at most 2 * 0.02; each has twice the error of a logit and its own rounding.
    const double dlogits_error = 2 * 0.02 * (2 * logit_error + rounding() + vocab * f32_rounding);
    expect_close("dhidden", dhidden, {.relative = rounding(), .absolute = dlogits_error * 6 / 8});
    // A column sums to 0.02 for each row with that target (0 or 1 here), plus its softmax.
    expect_close("dweight", dweight, {.relative = 2 * f32_rounding, .absolute = dlogits_error * 6});
}

INSTANTIATE_TEST_SUITE_P(Devices, HeadLossOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
