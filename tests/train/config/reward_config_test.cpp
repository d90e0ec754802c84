// Keys about the rewards of stage grpo, and what stages grpo and kto ask of the data.

#include "tests/support/config_text.h"

namespace colonnade {
namespace {

Config with(const std::string& yaml) {
    return read(minimal + yaml);
}
const std::string grpo = "stage: grpo\n";

TEST(RewardConfig, BecomesTheSettingsOfAdvantages) {
    const RewardSettings defaults = reward_settings(with(grpo));
    EXPECT_EQ(defaults.advantages.scale, AdvantageScale::group);
    EXPECT_TRUE(defaults.weights.empty());
    EXPECT_LT(defaults.advantages.clip_min, -1e300);
    const RewardSettings s =
        reward_settings(with(grpo + "scale_rewards: batch\nreward_weights: [1, -0.5]\nreward_clip_range: [-2, 3]\n"
                                    "normalize_advantages: true\n"));
    EXPECT_EQ(s.advantages.scale, AdvantageScale::batch);
    EXPECT_EQ(s.weights, (std::vector<double>{1, -0.5}));
    EXPECT_EQ(s.advantages.clip_min, -2);
    EXPECT_EQ(s.advantages.clip_max, 3);
    EXPECT_EQ(s.advantages.whole_set, WholeSet::normalized);
    for (const auto& [text, scale] : {std::pair("true", AdvantageScale::group),
                                      {"false", AdvantageScale::none},
                                      {"none", AdvantageScale::none},
                                      {"group", AdvantageScale::group}})
        EXPECT_EQ(with(grpo + "scale_rewards: " + text + "\n").scale_rewards, scale) << text;
    EXPECT_EQ(reward_settings(with(grpo + "multi_objective_aggregation: normalize_then_sum\n")).advantages.aggregation,
              RewardAggregation::normalize_then_sum);
    EXPECT_TRUE(encode_options(with(grpo + "mask_truncated_completions: true\n"), 0).mask_truncated);
}

TEST(RewardConfig, AnswersWithScoresAreCutAtTheirEnd) {
    EXPECT_EQ(with(grpo).rows(), RowKind::scored);
    EXPECT_EQ(with("stage: kto\n").rows(), RowKind::labelled);
    EXPECT_EQ(with("").excess_length, ExcessLength::drop);
    EXPECT_EQ(with("stage: dpo\n").excess_length, ExcessLength::drop);
    for (const char* stage : {"stage: grpo\n", "stage: kto\n"}) {
        EXPECT_EQ(with(stage).excess_length, ExcessLength::truncate);
        EXPECT_EQ(with(stage + std::string("excess_length: drop\n")).excess_length, ExcessLength::drop);
        const std::string resolved = resolved_yaml(with(stage));
        EXPECT_EQ(resolved_yaml(parse_config(resolved, "resolved").config), resolved);
    }
}

TEST(RewardConfig, RefusesBadSettings) {
    expect_problems({
        {"scale_rewards: none", "c.yaml:4:16: scale_rewards is for stage grpo, this is stage sft: set stage: grpo"},
        {"stage: kto\nmask_truncated_completions: true",
         "c.yaml:5:29: mask_truncated_completions is for stage grpo, this is stage kto: set stage: grpo"},
        {grpo + "scale_rewards: std", "c.yaml:5:16: scale_rewards: expected one of group, batch, none, found 'std'"},
        {grpo + "reward_weights: 1",
         "c.yaml:5:17: reward_weights: expected a list of numbers from -1e6 to 1e6; or "
         "none, found '1'"},
        {grpo + "reward_clip_range: [3, 1]",
         "c.yaml:5:20: reward_clip_range: expected the least and the greatest reward, such as [-5, 5], found 2 "
         "numbers, "
         "the greater one first"},
        {grpo + "multi_objective_aggregation: normalize_then_sum\nscale_rewards: none",
         "c.yaml:6:16: multi_objective_aggregation: normalize_then_sum has its own scale; remove scale_rewards, "
         "normalize_advantages and reward_clip_range"},
        {grpo + "train_on_eos: all",
         "c.yaml:5:15: train_on_eos: all contradicts stage grpo: only answers are compared, the prompt's end tokens "
         "are "
         "not"},
    });
}

}  // namespace
}  // namespace colonnade
