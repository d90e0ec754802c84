// links: layers
#include "layers/head_loss.h"

#include "gradient_check.h"

namespace colonnade {
namespace {

/// Head and loss over `chunk` rows at a time, with everything that they make.
template <typename T>
struct Head {
    int64_t rows, width, vocab, chunk;
    std::vector<T> hidden = random_values<T>(rows * width, 1), weight = random_values<T>(vocab * width, 2);
    std::vector<T> logits = std::vector<T>(static_cast<size_t>(chunk * vocab));
    std::vector<T> dhidden = std::vector<T>(hidden.size()), dweight = std::vector<T>(weight.size());
    std::vector<double> nll = std::vector<double>(static_cast<size_t>(rows));
    std::vector<uint8_t> correct = std::vector<uint8_t>(nll.size());
    std::vector<int32_t> targets;
    std::vector<double> scales;

    Head(int64_t rows_, int64_t width_, int64_t vocab_, int64_t chunk_)
        : rows(rows_), width(width_), vocab(vocab_), chunk(chunk_) {
        for (int32_t i = 0; i < rows; ++i) {
            targets.push_back(static_cast<int32_t>(i * 5 % vocab));
            scales.push_back(i % 3 == 1 ? 0.0 : 0.25 * static_cast<double>(i + 1));
        }
    }
    HeadLoss args() {
        return {.nll = nll,
                .correct = correct,
                .dhidden = tensor_of(dhidden, {rows, width}),
                .dweight = tensor_of(dweight, {vocab, width}),
                .logits = tensor_of(logits, {chunk, vocab}),
                .hidden = tensor_of(hidden, {rows, width}),
                .weight = tensor_of(weight, {vocab, width}),
                .targets = targets,
                .scales = scales};
    }
    HeadLoss evaluation() {
        HeadLoss a = args();
        a.dhidden = a.dweight = Tensor();
        return a;
    }
};

/// Straight from the definition, in double.
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

TEST(HeadLoss, ZeroScaleGivesExactlyZeroGradient) {
    Head<float> head(4, 5, 13, 4);
    head.scales = {0, 1, 0, 0};
    head_loss({}, head.args());
    for (size_t i = 0; i < head.dhidden.size(); ++i)
        if (i / 5 != 1) {
            EXPECT_EQ(head.dhidden[i], 0) << i;
        }
    EXPECT_GT(head.nll[0], 0);  // the loss is still told
    // A row that counts for nothing may even overflow.
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
    expect_error(Exit::internal, "4 targets, but 4 nll, 4 correct, 0 scales", [&] { head_loss({}, args); });
    args = head.args();
    args.dhidden = args.dhidden.slice(0, 0, 3);
    expect_error(Exit::internal, "head_loss: dhidden is [3, 5] f32 on cpu, expected [4, 5] f32",
                 [&] { head_loss({}, args); });
}

}  // namespace
}  // namespace colonnade
