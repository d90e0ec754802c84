// The losses of policy gradients over whole batches, through a head: against TRL's losses, gradients and metrics
// (tests/golden/make_policy_golden.py), against central differences, one pass against two, and shared tokens against
// separate ones.

#include "layers/policy_loss.h"

#include <map>
#include <numeric>
#include <set>

#include "engine/io/json.h"
#include "layers/head_loss.h"
#include "tests/support/device_case.h"
#include "tests/support/paths.h"
#include "tests/support/policy_names.h"
#include "tests/support/term_lists.h"

namespace colonnade {
namespace {

using Rows = std::vector<std::vector<double>>;

enum class Passes { one, two };

template <typename T = double>
std::vector<T> flat(const Rows& rows) {
    std::vector<T> all;
    for (const auto& row : rows)
        for (const double x : row) all.push_back(static_cast<T>(x));
    return all;
}

/// A head, and rollouts whose terms are its targets.
struct Rollouts {
    int64_t width, vocab;
    std::vector<double> hidden, weight;
    std::vector<int32_t> tokens;
    TermLists lists;
    std::vector<float> advantages, old, reference, importance;
    PolicySettings settings{};
    double max_completion_length = 1, temperature = 1;
    int64_t chunk = 3;

    // Outputs.
    std::vector<double> dhidden{}, dweight{}, nll{}, entropy{}, slopes{}, scales{};
    std::vector<double> sums = std::vector<double>(PolicySums::count);
    std::vector<double> extremes = std::vector<double>(PolicyExtremes::count, -INFINITY);

    PolicyTerms terms() {
        PolicyTerms t{.table = {.begins = view_of(lists.begins),
                                .sequences = view_of(lists.sequences),
                                .targets = view_of(lists.targets),
                                .weights = view_of(lists.weights),
                                .of_targets = {view_of(lists.target_begins), view_of(lists.target_terms)}},
                      .lengths = view_of(lists.lengths),
                      .advantages = view_of(advantages),
                      .settings = settings,
                      .totals = {lists.total(), static_cast<double>(lists.lengths.size()), max_completion_length}};
        if (!old.empty()) t.old = view_of(old);
        if (!reference.empty()) t.reference = view_of(reference);
        if (!importance.empty()) t.importance = view_of(importance);
        return t;
    }
    double sum(PolicySums::Name name) const { return sums[name]; }
    double loss() const { return sum(PolicySums::loss) / sum(PolicySums::divisor); }

    /// All outputs, gradients of the head included.
    void run(Passes passes) {
        const int64_t targets = std::ssize(tokens);
        std::vector<double> logits(static_cast<size_t>(chunk * vocab));
        std::vector<double> scratch(lists.lengths.size() * PolicyNumbers::count);
        nll.resize(tokens.size());
        entropy.resize(tokens.size());
        slopes.resize(lists.targets.size());
        scales.resize(tokens.size());
        dhidden.assign(hidden.size(), 0);
        dweight.assign(weight.size(), 0);
        sums.assign(PolicySums::count, 0);
        extremes.assign(PolicyExtremes::count, -INFINITY);
        HeadLoss head{.nll = view_of(nll),
                      .entropy = view_of(entropy),
                      .logits = tensor_of(logits, {chunk, vocab}),
                      .hidden = tensor_of(hidden, {targets, width}),
                      .weight = tensor_of(weight, {vocab, width}),
                      .targets = view_of(tokens),
                      .temperature = temperature};
        const auto with_gradients = [&] {
            head.dhidden = tensor_of(dhidden, {targets, width});
            head.dweight = tensor_of(dweight, {vocab, width});
        };
        if (passes == Passes::one) {
            with_gradients();
            head.policy = terms();
        }
        head_loss({}, head);
        policy_loss({}, {.sums = view_of(sums),
                         .extremes = view_of(extremes),
                         .slopes = view_of(slopes),
                         .scratch = tensor_of(scratch, {std::ssize(lists.lengths), PolicyNumbers::count}),
                         .nll = view_of(nll),
                         .entropy = view_of(entropy),
                         .terms = terms()});
        if (passes == Passes::one) return;
        target_scales({},
                      {.scales = view_of(scales), .slopes = view_of(slopes), .of_targets = terms().table.of_targets});
        with_gradients();
        head.scales = view_of(scales);
        head_loss({}, head);
    }
};

/// Random rollouts of a tree: sequences share tokens, terms have weights, and one sequence has no terms.
Rollouts random_rollouts(uint64_t seed) {
    constexpr int32_t targets = 9;
    constexpr int64_t width = 4, vocab = 7;
    const TermLists lists({{0, 1, 2, 3}, {}, {0, 1, 4, 5}, {0, 6}, {7, 8, 8}}, targets,
                          [](size_t t) { return t % 4 == 1 ? 0.5 : 1; });
    Rollouts r{.width = width,
               .vocab = vocab,
               .hidden = random_values<double>(targets * width, seed),
               .weight = random_values<double>(vocab * width, seed + 1),
               .tokens = {3, 1, 4, 1, 5, 0, 2, 6, 5},
               .lists = lists,
               .advantages = std::vector<float>(lists.targets.size()),
               .old = {},
               .reference = {},
               .importance = {},
               .max_completion_length = 20};
    const Philox random{seed, 99};
    r.run(Passes::two);
    for (int32_t t = 0; t < lists.terms(); ++t) {
        const auto i = static_cast<size_t>(t);
        const auto logp = -r.nll[static_cast<size_t>(lists.targets[i])];
        r.advantages[i] = lists.sequences[i] % 3 == 0 ? -0.75f : 1.5f;
        r.old.push_back(static_cast<float>(logp + 0.2 * random.normal(3 * i)));
        r.reference.push_back(static_cast<float>(logp + 0.3 * random.normal(3 * i + 1)));
        r.importance.push_back(i % 3 ? 1.0f : 0.6f);
    }
    return r;
}

Rollouts golden_rollouts(const Json& g) {
    const auto sequences = g.at("sequences").get<std::vector<std::vector<int32_t>>>();
    const auto hidden = g.at("hidden").get<Rows>(), weight = g.at("weight").get<Rows>();
    const TermLists lists(sequences, static_cast<int32_t>(hidden.size()));
    std::vector<float> advantages;
    for (size_t s = 0; s < sequences.size(); ++s)
        advantages.insert(advantages.end(), sequences[s].size(), g.at("advantages")[s].get<float>());
    return {.width = std::ssize(hidden[0]),
            .vocab = std::ssize(weight),
            .hidden = flat(hidden),
            .weight = flat(weight),
            .tokens = g.at("tokens").get<std::vector<int32_t>>(),
            .lists = lists,
            .advantages = advantages,
            .old = flat<float>(g.at("old")),
            .reference = flat<float>(g.at("ref")),
            .importance = {},
            .max_completion_length = g.at("max_completion_length")};
}

PolicySettings settings_of(const Json& g) {
    PolicySettings s{.loss = losses.at(g.at("loss_type")), .ratio = levels.at(g.at("level"))};
    s.epsilon_low = g.at("epsilon_low");
    s.epsilon_high = g.at("epsilon_high");
    if (!g.at("delta").is_null()) s.delta = g.at("delta");
    s.sapo_temperature_pos = g.at("sapo_temperature_pos");
    s.sapo_temperature_neg = g.at("sapo_temperature_neg");
    s.beta = g.at("beta");
    s.kl = g.at("use_bias_correction_kl") ? KlEstimate::bias_corrected : KlEstimate::plain;
    return s;
}

/// The factors as TRL makes them, to the rounding of f32.
std::vector<float> importance_of(const Json& g, Rollouts& r, const Rows& sampled_rows) {
    std::vector<float> factors(r.old.size()), sampled = flat<float>(sampled_rows);
    const auto mode =
        g.at("importance") == "token_truncate" ? ImportanceMode::token_truncate : ImportanceMode::sequence_mask;
    importance_factors({}, {.factors = view_of(factors),
                            .old = view_of(r.old),
                            .sampled = view_of(sampled),
                            .begins = view_of(r.lists.begins),
                            .settings = {mode, 0, g.at("importance_max")}});
    return factors;
}

/// Our figures under TRL's names.
std::map<std::string, double> metrics_of(const Rollouts& r) {
    const double terms = r.sum(PolicySums::terms), sequences = r.sum(PolicySums::sequences);
    const double ratios = r.settings.ratio == RatioLevel::token ? terms : sequences;
    const double low = r.sum(PolicySums::clip_low) / ratios, high = r.sum(PolicySums::clip_high) / ratios;
    return {{"kl", r.sum(PolicySums::kl) / terms},
            {"entropy", r.sum(PolicySums::entropy) / terms},
            {"clip_ratio/low_mean", low},
            {"clip_ratio/high_mean", high},
            {"clip_ratio/region_mean", low + high},
            {"clip_ratio/low_min", -r.extremes[PolicyExtremes::minus_clip_low_min]},
            {"clip_ratio/high_max", r.extremes[PolicyExtremes::clip_high_max]},
            {"cispo_clip_ratio", high}};
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double bound,
                 const char* what) {
    ASSERT_EQ(found.size(), expected.size()) << what;
    for (size_t i = 0; i < found.size(); ++i)
        EXPECT_NEAR(found[i], expected[i], bound * std::max(1.0, std::abs(expected[i]))) << what << " " << i;
}

TEST(PolicyLoss, WholeBatchesEqualTrl) {
    const Json golden = read_json_file(golden_file("policy_golden.json"));
    const Json& given = golden.at("head");
    std::set<std::string> above_zero;
    int cases = 0;
    for (const Json& g : golden.at("head_cases")) {
        if (g.at("kind") != "policy") continue;
        SCOPED_TRACE(fmt::format("{} {} {}", g.at("loss_type").dump(), g.at("level").dump(), g.at("beta").dump()));
        Rollouts r = golden_rollouts(given);
        r.settings = settings_of(g);
        r.temperature = g.at("temperature");
        const bool with_importance = g.contains("importance");
        if (with_importance) r.importance = importance_of(g, r, given.at("sampled").get<Rows>());
        const double bound = with_importance ? 1e-7 : 1e-12;  // our factors are f32
        double value = g.at("value");
        // A sequence without terms has the constant loss -A there, and none here.
        if (r.settings.loss == PolicyLoss::rloo) value += given.at("advantages")[4].get<double>() / 5;
        for (const int64_t chunk : {1, 3, 20}) {
            r.chunk = chunk;
            r.run(r.settings.ratio == RatioLevel::token ? Passes::one : Passes::two);
            EXPECT_NEAR(r.loss(), value, bound);
            expect_near(r.dhidden, flat(g.at("dhidden").get<Rows>()), bound, "dhidden");
            expect_near(r.dweight, flat(g.at("dweight").get<Rows>()), bound, "dweight");
            for (const auto& [name, expected] : g.at("metrics").items()) {
                EXPECT_NEAR(metrics_of(r).at(name), expected.get<double>(), 1e-7) << name;  // TRL averages in float
                if (expected > 0) above_zero.insert(name);
            }
        }
        ++cases;
    }
    EXPECT_EQ(cases, 18);
    EXPECT_EQ(above_zero.size(), 7u) << "only clip_ratio/low_min may be 0 in all cases";
}

/// Calls check(rollouts) for each loss and level that go together.
template <typename Check>
void for_each_loss(Check&& check) {
    for (const auto& [name, loss] : losses)
        for (const auto& [level_name, level] : levels)
            for (const KlEstimate kl : {KlEstimate::plain, KlEstimate::bias_corrected}) {
                const bool fits = loss == PolicyLoss::rloo    ? level == RatioLevel::sequence_sum
                                  : loss == PolicyLoss::cispo ? level == RatioLevel::token
                                                              : level != RatioLevel::sequence_sum;
                if (!fits) continue;
                SCOPED_TRACE(name + " " + level_name);
                Rollouts r = random_rollouts(11);
                r.settings = {.loss = loss, .ratio = level, .delta = 1.6, .beta = 0.4, .kl = kl};
                r.temperature = 0.8;
                check(r);
            }
}

TEST(PolicyLoss, GradientsMatchDifferences) {
    for_each_loss([](Rollouts& r) {
        if (r.settings.loss == PolicyLoss::cispo) return;  // its ratio is held constant
        r.run(Passes::two);
        const auto dhidden = r.dhidden, dweight = r.dweight;
        const auto loss = [&] {
            r.run(Passes::two);
            return r.loss();
        };
        expect_gradient("hidden", r.hidden, dhidden, loss);
        expect_gradient("weight", r.weight, dweight, loss);
    });
}

TEST(PolicyLoss, OnePassEqualsTwo) {
    for_each_loss([](Rollouts& r) {
        if (r.settings.ratio != RatioLevel::token) return;
        r.run(Passes::two);
        const Rollouts two = r;
        r.run(Passes::one);
        expect_near(r.dhidden, two.dhidden, 1e-15, "dhidden");
        expect_near(r.dweight, two.dweight, 1e-15, "dweight");
        EXPECT_EQ(r.sums, two.sums);
    });
}

/// `r` with each target once per term: what training without sharing computes.
Rollouts unshared(const Rollouts& r) {
    Rollouts flat = r;
    const auto width = static_cast<size_t>(r.width);
    std::vector<std::vector<int32_t>> sequences(r.lists.lengths.size());
    flat.hidden.clear();
    flat.tokens.clear();
    for (size_t t = 0; t < r.lists.targets.size(); ++t) {
        const auto target = static_cast<size_t>(r.lists.targets[t]);
        sequences[static_cast<size_t>(r.lists.sequences[t])].push_back(static_cast<int32_t>(t));
        const auto row = r.hidden.begin() + static_cast<std::ptrdiff_t>(target * width);
        flat.hidden.insert(flat.hidden.end(), row, row + r.width);
        flat.tokens.push_back(r.tokens[target]);
    }
    flat.lists = TermLists(sequences, r.lists.terms(), [&](size_t t) { return r.lists.weights[t]; });
    return flat;
}

TEST(PolicyLoss, SharedTokensEqualSeparateOnes) {
    for_each_loss([](Rollouts& r) {
        Rollouts separate = unshared(r);
        r.run(Passes::two);
        separate.run(Passes::two);
        std::vector<double> sum(r.hidden.size());
        const auto width = static_cast<size_t>(r.width);
        for (size_t t = 0; t < r.lists.targets.size(); ++t)
            for (size_t j = 0; j < width; ++j)
                sum[static_cast<size_t>(r.lists.targets[t]) * width + j] += separate.dhidden[t * width + j];
        expect_near(r.dhidden, sum, 1e-14, "dhidden");
        expect_near(r.dweight, separate.dweight, 1e-14, "dweight");
        expect_near(r.sums, separate.sums, 1e-14, "sums");
        expect_near(r.extremes, separate.extremes, 1e-14, "extremes");
    });
}

TEST(PolicyLoss, EqualSequencesAreOneOfTheirWeight) {
    const auto run = [](const std::vector<std::vector<int32_t>>& sequences, float weight) {
        Rollouts r = random_rollouts(12);
        r.lists = TermLists(sequences, 9, [&](size_t) { return weight; });
        const auto terms = static_cast<size_t>(r.lists.terms());
        r.advantages.assign(terms, 1.5f);
        r.old.clear();
        for (const int32_t target : r.lists.targets) r.old.push_back(-1.0f - 0.1f * static_cast<float>(target));
        r.reference = r.importance = {};
        r.run(Passes::one);
        return r;
    };
    const Rollouts once = run({{0, 1, 2, 3}}, 3), thrice = run({{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}}, 1);
    expect_near(thrice.dhidden, once.dhidden, 1e-15, "dhidden");
    expect_near(thrice.dweight, once.dweight, 1e-15, "dweight");
    EXPECT_NEAR(thrice.loss(), once.loss(), 1e-15);
    // A mean over terms does not ask how they are cut into sequences.
    const Rollouts cut = run({{0, 1}, {2, 3}}, 3);
    EXPECT_EQ(cut.dhidden, once.dhidden);
    EXPECT_NEAR(cut.loss(), once.loss(), 1e-15);
}

TEST(PolicyLoss, WithoutOldLogProbabilitiesTheRatioIsOne) {
    for_each_loss([](Rollouts& r) {
        if (r.settings.loss == PolicyLoss::cispo) r.settings.epsilon_high = 5;
        Rollouts none = r, unknown = r;
        none.old = {};
        unknown.old.assign(r.old.size(), std::nanf(""));
        none.run(Passes::two);
        unknown.run(Passes::two);
        EXPECT_EQ(none.extremes[PolicyExtremes::ratio_max], 1);
        EXPECT_EQ(none.extremes[PolicyExtremes::minus_ratio_min], -1);
        EXPECT_EQ(none.sum(PolicySums::outside), 0);
        EXPECT_EQ(unknown.dhidden, none.dhidden);
        EXPECT_EQ(unknown.sums, none.sums);
        EXPECT_GT(std::abs(none.dhidden[0]), 0);
    });
}

TEST(PolicyLoss, CountsRatiosThatDoNotFit) {
    Rollouts r = random_rollouts(13);
    r.run(Passes::one);
    // Ratios of 0.5, 1, 1.2 and 2 for the first sequence, of weights 1, 0.5, 1, 1.
    const double ratios[] = {0.5, 1, 1.2, 2};
    r.old.clear();
    for (const int32_t target : r.lists.targets)
        r.old.push_back(static_cast<float>(-r.nll[static_cast<size_t>(target)]));
    for (size_t t = 0; t < 4; ++t) r.old[t] -= static_cast<float>(std::log(ratios[t]));
    for (size_t t = 0; t < r.advantages.size(); ++t) r.advantages[t] = t < 4 ? -1 : 0;
    r.run(Passes::one);
    EXPECT_EQ(r.sum(PolicySums::outside), 2);
    EXPECT_NEAR(r.sum(PolicySums::ratio), 0.5 + 0.5 + 1.2 + 2 + (r.lists.total() - 3.5), 1e-5);
    EXPECT_NEAR(r.extremes[PolicyExtremes::ratio_max], 2, 1e-6);
    EXPECT_NEAR(-r.extremes[PolicyExtremes::minus_ratio_min], 0.5, 1e-6);
    EXPECT_EQ(r.sum(PolicySums::clip_low), 1);
    EXPECT_EQ(r.sum(PolicySums::clip_high), 0);
    EXPECT_FLOAT_EQ(static_cast<float>(r.extremes[PolicyExtremes::importance_max]), 1);
    EXPECT_FLOAT_EQ(static_cast<float>(-r.extremes[PolicyExtremes::minus_importance_min]), 0.6f);
}

TEST(PolicyLoss, ATermOfWeightZeroTeachesNothingEvenIfItsRatioIsInfinite) {
    Rollouts r = random_rollouts(14);
    r.lists =
        TermLists({{0, 1, 2, 3}, {}, {0, 1, 4, 5}, {0, 6}, {7, 8, 8}}, 9, [](size_t t) { return t == 2 ? 0 : 1; });
    r.settings.beta = 0.1;
    Rollouts extreme = r;
    extreme.old[2] = -1e30f;
    extreme.advantages[2] = -1;
    for (const Passes passes : {Passes::one, Passes::two}) {
        r.run(passes);
        extreme.run(passes);
        EXPECT_EQ(extreme.dhidden, r.dhidden);
        EXPECT_EQ(extreme.sums, r.sums);
        EXPECT_EQ(extreme.extremes, r.extremes);
    }
}

TEST(PolicyLoss, RefusesBadInput) {
    Rollouts r = random_rollouts(15);
    r.settings.ratio = RatioLevel::sequence;
    r.advantages[1] = 9;
    expect_error(Exit::internal, "sequence 0 has the advantages -0.75 and 9", [&] { r.run(Passes::two); });
    expect_error(Exit::internal, "policy terms need a ratio of tokens", [&] { r.run(Passes::one); });
    r.settings = {.beta = 0.1};
    r.reference = {};
    expect_error(Exit::internal, "beta is 0.1, but no reference is given", [&] { r.run(Passes::one); });
    r.settings = {};
    r.lists.targets[3] = 9;
    expect_error(Exit::internal, "targets of terms[3] is 9, expected [0, 9)", [&] { r.run(Passes::one); });
    r.lists.targets[3] = 3;
    r.lists.begins[1] = 40;
    expect_error(Exit::internal, "begins [6] i32 is no ascending list from 0 to 13", [&] { r.run(Passes::one); });
    r = random_rollouts(15);
    r.temperature = 0;
    expect_error(Exit::internal, "temperature 0, expected a number above 0", [&] { r.run(Passes::one); });
}

}  // namespace
}  // namespace colonnade
