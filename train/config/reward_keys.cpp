#include "train/config/reward_keys.h"

namespace colonnade {
namespace {

using C = Config;

/// A list of numbers; none is the empty list.
Key<Config> numbers_key(const char* name, std::vector<double> Config::*field, const char* doc) {
    Key<Config> key{.name = name, .doc = doc, .what = "a list of numbers from -1e6 to 1e6; or none"};
    key.read = [=, what = key.what](const ConfigNode& node, const std::string& label, Config& config,
                                    Reading& reading) {
        (config.*field).clear();
        if (node.kind == ConfigNode::Kind::scalar && node.text == "none") return;
        bool fits = node.kind == ConfigNode::Kind::sequence;
        for (const ConfigNode& item : node.children) {
            double number = 0;
            fits = fits && ValueFormat<double>::read(item, from_to(-1e6, 1e6), number);
            (config.*field).push_back(number);
        }
        if (fits) return;
        reading.problems.add(node.where, "{}: expected {}, found {}", label, what, node.found());
        reading.unreadable.insert(label);
    };
    key.write = [field](YAML::Emitter& out, const Config& config) {
        out << YAML::Flow << YAML::BeginSeq;
        for (const double number : config.*field) out << fmt::format("{}", number);
        out << YAML::EndSeq;
    };
    return key;
}

/// Keys of stage grpo must keep their defaults in the others.
void expect_reward_stage(const Config& c, Rules& rules) {
    const Config defaults;
    const std::pair<const char*, bool> untouched[] = {
        {"scale_rewards", c.scale_rewards == defaults.scale_rewards},
        {"reward_weights", c.reward_weights.empty()},
        {"multi_objective_aggregation", c.multi_objective_aggregation == defaults.multi_objective_aggregation},
        {"normalize_advantages", !c.normalize_advantages},
        {"reward_clip_range", c.reward_clip_range.empty()},
        {"mask_truncated_completions", !c.mask_truncated_completions}};
    for (const auto& [key, holds] : untouched)
        rules.expect(c.stage == Stage::grpo || holds, {key, "stage"},
                     "{} is for stage grpo, this is stage {}: set stage: grpo", key, spell(c.stage));
}

}  // namespace

Section reward_section() {
    return {
        "Rewards",
        {
            key("scale_rewards", &C::scale_rewards,
                "Stage grpo: what an answer's reward less the mean of its group is divided by: the standard deviation "
                "of the group; batch: that of all answers of the data; none: nothing (Dr. GRPO). true is group, false "
                "is none. docs/scored_data.md has the formulas."),
            numbers_key("reward_weights", &C::reward_weights,
                        "Weights of the reward functions, in the order in which the rows have them."),
            key("multi_objective_aggregation", &C::multi_objective_aggregation,
                "Rewards of several functions: sum_then_normalize adds them up first; normalize_then_sum normalises "
                "those of each function in their group, adds up, and normalises over all answers (GDPO)."),
            key("normalize_advantages", &C::normalize_advantages,
                "Normalise the advantages of all answers of the data at the end, as RLOO may."),
            numbers_key("reward_clip_range", &C::reward_clip_range,
                        "Least and greatest reward of an answer; others are cut to these."),
            key("mask_truncated_completions", &C::mask_truncated_completions,
                "Learn nothing of answers that were cut off, by the sampler or by max_length. They count as answers, "
                "and in their group."),
        }};
}

void settle_rewards(Config& c, Rules& rules) {
    expect_reward_stage(c, rules);
    if (c.rows() != RowKind::scored && c.rows() != RowKind::labelled) return;
    if (!rules.given("excess_length")) c.excess_length = ExcessLength::truncate;
    const std::vector<double>& range = c.reward_clip_range;
    rules.expect(range.empty() || (range.size() == 2 && range[0] <= range[1]), {"reward_clip_range"},
                 "reward_clip_range: expected the least and the greatest reward, such as [-5, 5], found {} numbers{}",
                 range.size(), range.size() == 2 ? ", the greater one first" : "");
    rules.expect(c.policy_loss != PolicyLoss::rloo || c.scale_rewards != AdvantageScale::batch,
                 {"scale_rewards", "loss_type"},
                 "loss_type rloo compares a reward with the others of its group and divides by nothing; remove "
                 "scale_rewards: batch");
    const bool alone = c.scale_rewards == AdvantageScale::group && !c.normalize_advantages && range.empty();
    rules.expect(c.multi_objective_aggregation == RewardAggregation::sum_then_normalize || alone,
                 {"scale_rewards", "normalize_advantages", "reward_clip_range", "multi_objective_aggregation"},
                 "multi_objective_aggregation: normalize_then_sum has its own scale; remove scale_rewards, "
                 "normalize_advantages and reward_clip_range");
}

}  // namespace colonnade
