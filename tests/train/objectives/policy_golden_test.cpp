// Golden values of TRL through a whole model (tests/golden/make_policy_model_golden.py): loss, metrics and gradients of
// stage grpo, with the answers packed into rows that share what they begin with.

#include <gtest/gtest.h>

#include <map>

#include "tests/support/golden_values.h"
#include "tests/support/paths.h"
#include "tests/support/policy_names.h"
#include "tests/support/step_outcome.h"
#include "train/model/weight_folder.h"
#include "train/objectives/policy_objective.h"

namespace colonnade {
namespace {

std::vector<Sample> samples_of(const Json& golden) {
    std::vector<Sample> samples;
    for (const Json& answer : golden.at("answers")) {
        Sequence s{.tokens = golden.at("prompts")[answer.at("prompt").get<size_t>()].get<std::vector<int32_t>>()};
        const auto prompt = static_cast<int32_t>(s.tokens.size());
        for (const Json& token : answer.at("tokens")) s.tokens.push_back(token);
        s.learned = {{prompt, static_cast<int32_t>(s.tokens.size()), 1}};
        s.advantage = answer.at("advantage");
        s.logps = {.old = answer.at("old"), .sampled = answer.at("sampled"), .reference = answer.at("ref")};
        samples.push_back({.sequences = {std::move(s)}});
    }
    return samples;
}

PolicyOptions options_of(const Json& golden, const Json& g) {
    PolicyOptions o{.max_completion_length = golden.at("max_completion_length"),
                    .temperature = golden.at("temperature"),
                    .importance = {}};
    o.settings = {.loss = losses.at(g.at("loss_type")),
                  .ratio = levels.at(g.at("level")),
                  .epsilon_low = g.at("epsilon_low"),
                  .epsilon_high = g.at("epsilon_high"),
                  .sapo_temperature_pos = g.at("sapo_temperature_pos"),
                  .sapo_temperature_neg = g.at("sapo_temperature_neg"),
                  .beta = g.at("beta"),
                  .kl = g.at("use_bias_correction_kl") ? KlEstimate::bias_corrected : KlEstimate::plain};
    if (!g.at("delta").is_null()) o.settings.delta = g.at("delta");
    if (g.contains("importance"))
        o.importance =
            ImportanceSettings{.mode = g.at("importance") == "token_truncate" ? ImportanceMode::token_truncate
                                                                              : ImportanceMode::sequence_mask,
                               .clip_min = 0,
                               .clip_max = g.at("importance_max")};
    return o;
}

std::vector<double> gradient_of(const Learner& learner, const std::string& name) {
    const auto all = learner.parameters().all();
    const auto found = std::ranges::find(all, name, &Parameter::name);
    require(found != all.end(), "no parameter {}", name);
    return numbers_of(slice_of(learner.gradients(), *found));
}

TEST(PolicyGolden, WholeModelsEqualTrl) {
    const Json golden = read_json_file(golden_file("policy_model_golden.json"));
    const std::string folder = golden_file("models/llama_tied");
    const ModelConfig config = read_model_config(folder);
    const std::vector<Sample> samples = samples_of(golden);
    std::vector<const Sample*> first, second;
    for (const Sample& sample : samples) (first.size() < 4 ? first : second).push_back(&sample);
    const std::vector<Batch> batches = {make_batch({first}, {.sharing = Sharing::row}),
                                        make_batch({second}, {.sharing = Sharing::row})};
    EXPECT_LT(batches[0].real_tokens, 8 + 3 + 5 + 9 + 1 + 7 + 1) << "prompts are shared";
    std::map<std::string, double> largest;
    for (const Json& g : golden.at("cases")) {
        SCOPED_TRACE(fmt::format("{} {} beta {}", g.at("loss_type").dump(), g.at("level").dump(), g.at("beta").dump()));
        const auto learner = tiny_learner(config, DType::f64, 1, 64,
                                          {.objective = std::make_shared<PolicyObjective>(options_of(golden, g))});
        learner->fill_weights([&](const Tensor& flat) { load_weights(learner->parameters(), config, folder, flat); });
        double total = 0;
        for (const Batch& batch : batches) total += learner->objective().total(batch);
        const Outcome found = run(*learner, batches, total);
        const double bound = g.contains("importance") ? 1e-6 : 1e-10;  // our factors are f32
        EXPECT_NEAR(found.sums.mean(), g.at("value").get<double>(), bound);
        std::map<std::string, double> metrics;
        for (const auto& [name, value] : learner->objective().metrics(found.sums, Phase::training))
            metrics[name] = std::get<double>(value);
        for (const auto& [name, value] : g.at("metrics").items()) {
            EXPECT_NEAR(metrics.at(name), value.get<double>(), 1e-6) << name;  // TRL averages in float
            largest[name] = std::max(largest[name], value.get<double>());
        }
        for (const auto& [name, values] : g.at("gradients").items())
            EXPECT_LE(distance(gradient_of(*learner, name), values.get<std::vector<double>>()), bound) << name;
        for (const auto& [name, norm] : g.at("norms").items()) {
            double squares = 0;
            for (const double x : gradient_of(*learner, name)) squares += x * x;
            EXPECT_NEAR(std::sqrt(squares), norm.get<double>(), bound * norm.get<double>()) << name;
        }
    }
    EXPECT_EQ(golden.at("cases").size(), 10u);
    for (const char* name : {"kl", "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "cispo_clip_ratio"})
        EXPECT_GT(largest[name], 0) << name << " is 0 in all cases";
}

}  // namespace
}  // namespace colonnade
