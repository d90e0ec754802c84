// The losses of labelled answers through a head against TRL's loss, gradients and metrics
// (tests/golden/make_policy_golden.py), and the ops on every device against loops.

#include "layers/unpaired_loss.h"

#include "engine/io/json.h"
#include "layers/head_loss.h"
#include "layers/policy_loss.h"
#include "tests/support/device_case.h"
#include "tests/support/paths.h"
#include "tests/support/term_lists.h"

namespace colonnade {
namespace {

using Rows = std::vector<std::vector<double>>;

std::vector<double> flat(const Rows& rows) {
    std::vector<double> all;
    for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
    return all;
}

TEST(UnpairedLoss, WholeBatchesEqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    const Json& given = golden.at("head");
    const Rows hidden_rows = given.at("hidden"), weight_rows = given.at("weight");
    const int64_t targets = std::ssize(hidden_rows), width = std::ssize(hidden_rows[0]);
    const int64_t vocab = std::ssize(weight_rows);
    std::vector<double> hidden = flat(hidden_rows), weight = flat(weight_rows);
    const std::vector<int32_t> tokens = given.at("tokens"), labels = given.at("labels");
    const std::vector<double> reference = given.at("ref_logps"), mismatched = given.at("mismatched");
    const TermLists lists(given.at("sequences"), static_cast<int32_t>(targets));
    const auto answers = std::ssize(reference);
    int cases = 0;
    for (const Json& g : golden.at("head_cases")) {
        if (g.at("kind") != "unpaired") continue;
        SCOPED_TRACE(g.at("loss").dump());
        std::vector<double> logits(static_cast<size_t>(targets * vocab)), nll(tokens.size()), scales(tokens.size());
        std::vector<double> dhidden(hidden.size()), dweight(weight.size()), logps(reference.size());
        std::vector<double> coefficients(reference.size()), slopes, sums(UnpairedSums::count), drift(1);
        HeadLoss head{.nll = view_of(nll),
                      .logits = tensor_of(logits, {targets, vocab}),
                      .hidden = tensor_of(hidden, {targets, width}),
                      .weight = tensor_of(weight, {vocab, width}),
                      .targets = view_of(tokens)};
        head_loss({}, head);
        for (size_t t = 0; t < lists.targets.size(); ++t)
            logps[static_cast<size_t>(lists.sequences[t])] -= nll[static_cast<size_t>(lists.targets[t])];
        const std::vector<double> zeros(mismatched.size());
        add_log_ratios({}, {.sum = view_of(drift), .logps = view_of(mismatched), .reference = view_of(zeros)});
        unpaired_loss({}, {.sums = view_of(sums),
                           .coefficients = view_of(coefficients),
                           .logps = view_of(logps),
                           .reference = view_of(reference),
                           .labels = view_of(labels),
                           .mismatched = view_of(drift),
                           .mismatched_count = static_cast<double>(mismatched.size()),
                           .settings = {g.at("loss") == "kto" ? UnpairedLoss::kto : UnpairedLoss::apo_zero_unpaired,
                                        g.at("beta"), g.at("desirable_weight"), g.at("undesirable_weight")},
                           .scale = 1 / static_cast<double>(answers)});
        for (const int32_t answer : lists.sequences) slopes.push_back(coefficients[static_cast<size_t>(answer)]);
        target_scales({}, {.scales = view_of(scales),
                           .slopes = view_of(slopes),
                           .of_targets = {view_of(lists.target_begins), view_of(lists.target_terms)}});
        head.dhidden = tensor_of(dhidden, {targets, width});
        head.dweight = tensor_of(dweight, {vocab, width});
        head.scales = view_of(scales);
        head_loss({}, head);

        const double desirable = sums[UnpairedSums::desirable], others = sums[UnpairedSums::answers] - desirable;
        EXPECT_NEAR(sums[UnpairedSums::loss] / sums[UnpairedSums::answers], g.at("value").get<double>(), 1e-13);
        const std::vector<double> h = flat(g.at("dhidden")), w = flat(g.at("dweight"));
        for (size_t i = 0; i < h.size(); ++i) EXPECT_NEAR(dhidden[i], h[i], 1e-13) << i;
        for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(dweight[i], w[i], 1e-13) << i;
        const auto metric = [&](const char* name) { return g.at("metrics").at(name).get<double>(); };
        EXPECT_NEAR(sums[UnpairedSums::chosen_reward] / desirable, metric("rewards/chosen"), 1e-12);
        EXPECT_NEAR(sums[UnpairedSums::rejected_reward] / others, metric("rewards/rejected"), 1e-12);
        EXPECT_NEAR(sums[UnpairedSums::chosen_logp] / desirable, metric("logps/chosen"), 1e-12);
        if (g.at("loss") == "kto") {
            EXPECT_NEAR(sums[UnpairedSums::z] / static_cast<double>(answers), metric("kl"), 1e-12);
        }
        EXPECT_NEAR(sums[UnpairedSums::rejected_logp] / others, metric("logps/rejected"), 1e-12);
        ++cases;
    }
    EXPECT_EQ(cases, 2);
}

struct UnpairedLossOnDevice : DeviceCase {};

TEST_P(UnpairedLossOnDevice, EqualsLoops) {
    for (const int64_t answers : {0, 1, 5, 700})
        for (const double drift : {-40.0, 60.0}) {
            SCOPED_TRACE(fmt::format("{} answers, drift {}", answers, drift));
            release();
            const Philox random{41, static_cast<uint64_t>(answers)};
            std::vector<double> logps, reference;
            std::vector<int32_t> labels;
            for (uint64_t i = 0; i < static_cast<uint64_t>(answers); ++i) {
                logps.push_back(-60 * random.uniform(3 * i));
                reference.push_back(logps.back() + 3 * random.normal(3 * i + 1));
                labels.push_back(random.uniform(3 * i + 2) < 0.3);
            }
            const Twin l = twin(DType::f64, {answers}, logps), f = twin(DType::f64, {answers}, reference);
            const Twin labels_t = indices(labels), coefficients = poisoned(DType::f64, {answers});
            const Twin mismatched = twin(DType::f64, {1}, {drift}), total = twin(DType::f64, {1}, {2});
            const Twin sums = twin(DType::f64, {UnpairedSums::count}, std::vector<double>(UnpairedSums::count, 3));
            const Twin evaluated = twin(DType::f64, {UnpairedSums::count}, std::vector<double>(UnpairedSums::count, 3));
            const UnpairedSettings settings{UnpairedLoss::kto, 0.2, 1.5, 0.5};
            run([&](const Context& ctx, auto of) {
                UnpairedAnswers args{.sums = of(sums),
                                     .coefficients = of(coefficients),
                                     .logps = of(l),
                                     .reference = of(f),
                                     .labels = of(labels_t),
                                     .mismatched = of(mismatched),
                                     .mismatched_count = 64,
                                     .settings = settings,
                                     .scale = 0.125};
                unpaired_loss(ctx, args);
                args.sums = of(evaluated);
                args.coefficients = {};
                unpaired_loss(ctx, args);
                add_log_ratios(ctx, {.sum = of(total), .logps = of(l), .reference = of(f)});
            });
            std::vector<double> expected(UnpairedSums::count, 3), slopes;
            double ratios = 2;
            for (size_t i = 0; i < logps.size(); ++i) {
                const bool good = labels[i] == 1;
                const double s = logps[i] - reference[i];
                const ValueAndSlope loss = unpaired_loss(
                    settings, good ? AnswerLabel::desirable : AnswerLabel::undesirable, s, std::max(drift / 64, 0.0));
                slopes.push_back(0.125 * loss.slope);
                ratios += s;
                expected[UnpairedSums::loss] += loss.value;
                expected[UnpairedSums::answers] += 1;
                expected[UnpairedSums::desirable] += good;
                expected[good ? UnpairedSums::chosen_reward : UnpairedSums::rejected_reward] += 0.2 * s;
                expected[good ? UnpairedSums::chosen_logp : UnpairedSums::rejected_logp] += logps[i];
                expected[UnpairedSums::z] += std::max(drift / 64, 0.0);
            }
            for (const Tensor& t : {sums.device, sums.exact}) {
                const auto found = read(t);
                for (size_t k = 0; k < expected.size(); ++k)
                    EXPECT_NEAR(found[k], expected[k], 1e-12 * std::max(1.0, std::abs(expected[k]))) << k;
            }
            EXPECT_EQ(read(evaluated.device), read(sums.device));
            const auto coefficient = read(coefficients.device);
            for (size_t i = 0; i < slopes.size(); ++i) ASSERT_NEAR(coefficient[i], slopes[i], 1e-15) << i;
            EXPECT_NEAR(read(total.device)[0], ratios, 1e-10);
        }
}

INSTANTIATE_TEST_SUITE_P(Devices, UnpairedLossOnDevice, every_device(), name_of_device);

TEST(UnpairedLoss, RefusesBadInput) {
    std::vector<double> sums(UnpairedSums::count), numbers(2), drift(1);
    std::vector<int32_t> labels = {1, 2};
    UnpairedAnswers args{.sums = view_of(sums),
                         .logps = view_of(numbers),
                         .reference = view_of(numbers),
                         .labels = view_of(labels),
                         .settings = {},
                         .scale = 1};
    expect_error(Exit::internal, "mismatched is", [&] { unpaired_loss({}, args); });
    args.mismatched = view_of(drift);
    expect_error(Exit::internal, "answer 1 has the label 2", [&] { unpaired_loss({}, args); });
}

}  // namespace
}  // namespace colonnade
