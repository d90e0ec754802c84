// The ops of layers/policy_loss.h on every device against the CPU, and what they write against loops.

#include "layers/policy_loss.h"
#include "tests/support/device_case.h"
#include "tests/support/term_lists.h"

namespace colonnade {
namespace {

struct PolicyLossOnDevice : DeviceCase {
    /// Single precision on both devices.
    Twin single(const std::vector<float>& values) {
        const std::vector<double> wide(values.begin(), values.end());
        return {twin(DType::f32, {std::ssize(values)}, wide).device, view_of(values)};
    }
    void expect_near(const char* name, const Twin& t, double bound) {
        const auto found = read(t.device), expected = read(t.exact);
        for (size_t i = 0; i < expected.size(); ++i) {
            if (std::isinf(expected[i])) {
                ASSERT_EQ(found[i], expected[i]) << name << " " << i;
            } else {
                ASSERT_NEAR(found[i], expected[i], bound * std::max(1.0, std::abs(expected[i]))) << name << " " << i;
            }
        }
    }
};

/// Sequences of 0 to 40 terms, of which about every fourth is shared with the sequence before.
TermLists random_lists(int64_t sequences, const Philox& random, int32_t& targets) {
    std::vector<std::vector<int32_t>> lists;
    targets = 0;
    for (int64_t s = 0; s < sequences; ++s) {
        const auto terms = random.below(static_cast<uint64_t>(s), 41);
        std::vector<int32_t> list;
        for (size_t k = 0; k < terms; ++k) {
            const bool shared = s > 0 && 4 * k < terms && k < lists.back().size();
            list.push_back(shared ? lists.back()[k] : targets++);
        }
        lists.push_back(list);
    }
    return {lists, targets, [&](size_t t) { return t % 7 == 0 ? 0.25 : t % 11 == 0 ? 0 : 1; }};
}

TEST_P(PolicyLossOnDevice, EqualsTheCpu) {
    struct Case {
        PolicyLoss loss;
        RatioLevel level;
    };
    for (const Case c :
         {Case{PolicyLoss::dapo, RatioLevel::token}, Case{PolicyLoss::cispo, RatioLevel::token},
          Case{PolicyLoss::sapo, RatioLevel::token}, Case{PolicyLoss::grpo, RatioLevel::sequence},
          Case{PolicyLoss::luspo, RatioLevel::sequence}, Case{PolicyLoss::rloo, RatioLevel::sequence_sum}})
        for (const int64_t sequences : {0, 1, 6, 300}) {
            SCOPED_TRACE(fmt::format("loss {}, {} sequences", static_cast<int>(c.loss), sequences));
            release();
            const Philox random{31, static_cast<uint64_t>(sequences)};
            int32_t targets = 0;
            const TermLists lists = random_lists(sequences, random, targets);
            const int64_t terms = lists.terms();
            std::vector<double> nll, entropy;
            std::vector<float> advantages, old, reference, importance;
            for (int32_t i = 0; i < targets; ++i) {
                nll.push_back(4 * random.uniform(static_cast<uint64_t>(100000 + i)));
                entropy.push_back(random.uniform(static_cast<uint64_t>(200000 + i)));
            }
            for (size_t t = 0; t < static_cast<size_t>(terms); ++t) {
                const double logp = -nll[static_cast<size_t>(lists.targets[t])];
                advantages.push_back(lists.sequences[t] % 2 ? -1.25f : 0.75f);
                old.push_back(t % 13 == 5 ? std::nanf("") : static_cast<float>(logp + 0.2 * random.normal(3 * t)));
                reference.push_back(static_cast<float>(logp + 0.2 * random.normal(3 * t + 1)));
                importance.push_back(static_cast<float>(0.5 + random.uniform(3 * t + 2)));
            }
            const Twin begins = indices(lists.begins), of_sequences = indices(lists.sequences);
            const Twin of_targets = indices(lists.targets), weights = single(lists.weights);
            const Twin target_begins = indices(lists.target_begins), target_terms = indices(lists.target_terms);
            const Twin lengths = twin(DType::f64, {sequences}, lists.lengths), a = single(advantages);
            const Twin o = single(old), f = single(reference), factors = single(importance);
            const Twin nll_t = twin(DType::f64, {targets}, nll), entropy_t = twin(DType::f64, {targets}, entropy);
            const Twin sums = twin(DType::f64, {PolicySums::count}, std::vector<double>(PolicySums::count, 3));
            const Twin extremes =
                twin(DType::f64, {PolicyExtremes::count}, std::vector<double>(PolicyExtremes::count, 0.5));
            const Twin scratch = poisoned(DType::f64, {sequences, PolicyNumbers::count});
            const Twin slopes = poisoned(DType::f64, {terms}), scales = poisoned(DType::f64, {targets});
            run([&](const Context& ctx, auto of) {
                const PolicyTerms p{.table = {.begins = of(begins),
                                              .sequences = of(of_sequences),
                                              .targets = of(of_targets),
                                              .weights = of(weights),
                                              .of_targets = {of(target_begins), of(target_terms)}},
                                    .lengths = of(lengths),
                                    .advantages = of(a),
                                    .old = of(o),
                                    .reference = of(f),
                                    .importance = of(factors),
                                    .settings = {.loss = c.loss, .ratio = c.level, .beta = 0.2},
                                    .totals = {1000, 500, 64}};
                policy_loss(ctx, {.sums = of(sums),
                                  .extremes = of(extremes),
                                  .slopes = of(slopes),
                                  .scratch = of(scratch),
                                  .nll = of(nll_t),
                                  .entropy = of(entropy_t),
                                  .terms = p});
                target_scales(ctx, {.scales = of(scales), .slopes = of(slopes), .of_targets = p.table.of_targets});
            });
            expect_near("sums", sums, 1e-12);
            expect_near("extremes", extremes, 1e-13);
            expect_near("slopes", slopes, 1e-13);
            expect_near("scales", scales, 1e-13);
            const auto found = read(sums.device), slope = read(slopes.device), scale = read(scales.device);
            EXPECT_NEAR(found[PolicySums::terms], 3 + lists.total(), 1e-9);
            EXPECT_EQ(found[PolicySums::sequences], 3 + sequences);
            double entropy_sum = 3;
            std::vector<double> expected(nll.size());
            for (size_t t = 0; t < slope.size(); ++t) {
                entropy_sum += static_cast<double>(lists.weights[t]) * entropy[static_cast<size_t>(lists.targets[t])];
                expected[static_cast<size_t>(lists.targets[t])] -= slope[t];
            }
            EXPECT_NEAR(found[PolicySums::entropy], entropy_sum, 1e-9);
            for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(scale[i], expected[i], 1e-15) << i;
        }
}

TEST_P(PolicyLossOnDevice, MakesImportanceFactors) {
    for (const ImportanceMode mode : {ImportanceMode::sequence_mask, ImportanceMode::sequence_truncate,
                                      ImportanceMode::token_mask, ImportanceMode::token_truncate}) {
        release();
        const Philox random{32, 0};
        const std::vector<int32_t> begins = {0, 3, 3, 700, 701};
        std::vector<float> old, sampled;
        for (size_t t = 0; t < 701; ++t) {
            old.push_back(static_cast<float>(-random.uniform(2 * t)));
            sampled.push_back(t % 50 == 1 ? std::nanf("")
                                          : old.back() + static_cast<float>(0.03 * random.normal(2 * t + 1)));
        }
        sampled[0] = old[0] - 1;  // a ratio of 2.7
        const ImportanceSettings settings{mode, 0.9, 1.05};
        const Twin begins_t = indices(begins), old_t = single(old), sampled_t = single(sampled);
        const std::vector<float> nothing(701, std::nanf(""));
        std::vector<float> exact = nothing;
        const Twin factors{single(nothing).device, view_of(exact)};
        run([&](const Context& ctx, auto of) {
            importance_factors(ctx, {.factors = of(factors),
                                     .old = of(old_t),
                                     .sampled = of(sampled_t),
                                     .begins = of(begins_t),
                                     .settings = settings});
        });
        const auto found = read(factors.device);
        int bounded = 0;
        for (size_t s = 0; s + 1 < begins.size(); ++s) {
            const auto log_ratio = [&](int32_t t) {
                const auto i = static_cast<size_t>(t);
                return std::isnan(sampled[i]) ? 0 : static_cast<double>(old[i]) - static_cast<double>(sampled[i]);
            };
            double sum = 0;
            for (int32_t t = begins[s]; t < begins[s + 1]; ++t) sum += log_ratio(t);
            for (int32_t t = begins[s]; t < begins[s + 1]; ++t) {
                const bool by_token = mode == ImportanceMode::token_mask || mode == ImportanceMode::token_truncate;
                const double expected = importance_factor(settings, by_token ? log_ratio(t) : sum);
                ASSERT_NEAR(found[static_cast<size_t>(t)], expected, 1e-6) << t;
                bounded += expected == 0 || expected == 1.05;
            }
        }
        EXPECT_GT(bounded, 0);
        EXPECT_LT(bounded, 701);
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, PolicyLossOnDevice, every_device(), name_of_device);

}  // namespace
}  // namespace colonnade
