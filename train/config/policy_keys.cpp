#include "train/config/policy_keys.h"

#include "train/config/preference_keys.h"

namespace colonnade {
namespace {

/// Keys of stage grpo must keep their defaults in the others.
void expect_policy_stage(const Config& c, Rules& rules) {
    const Config d;
    const bool grpo = c.stage == Stage::grpo;
    const std::pair<const char*, bool> keys[] = {
        {"importance_sampling_level", c.importance_sampling_level == d.importance_sampling_level},
        {"epsilon", c.epsilon == d.epsilon},
        {"epsilon_high", c.epsilon_high == d.epsilon_high},
        {"delta", c.delta == d.delta},
        {"use_bias_correction_kl", c.use_bias_correction_kl == d.use_bias_correction_kl},
        {"sapo_temperature_pos", c.sapo_temperature_pos == d.sapo_temperature_pos},
        {"sapo_temperature_neg", c.sapo_temperature_neg == d.sapo_temperature_neg},
        {"max_completion_length", c.max_completion_length == 0},
        {"old_logps", c.old_logps == d.old_logps},
        {"vllm_importance_sampling_correction", c.vllm_importance_sampling_correction},
        {"vllm_importance_sampling_mode", c.vllm_importance_sampling_mode == d.vllm_importance_sampling_mode},
        {"vllm_importance_sampling_clip_max",
         c.vllm_importance_sampling_clip_max == d.vllm_importance_sampling_clip_max},
        {"vllm_importance_sampling_clip_min",
         c.vllm_importance_sampling_clip_min == d.vllm_importance_sampling_clip_min}};
    for (const auto& [key, untouched] : keys)
        rules.expect(grpo || untouched, {key, "stage"}, "{} is for stage grpo, this is stage {}: set stage: grpo", key,
                     spell(c.stage));
    rules.expect(grpo || c.stage == Stage::distill || c.temperature == d.temperature, {"temperature", "stage"},
                 "temperature is for stages grpo and distill, this is stage {}", spell(c.stage));
    if (!grpo && c.policy_loss)
        rules.expect(false, {"loss_type", "stage"}, "loss_type {} is for stage grpo, this is stage {}: set stage: grpo",
                     spell(*c.policy_loss), spell(c.stage));
    rules.expect(!grpo || c.loss_type == d.loss_type, {"loss_type", "stage"},
                 "loss_type: expected one of {} in stage grpo, found a loss of stage dpo",
                 spelled_choices<PolicyLoss>());
}

/// A key that has no effect gets its default.
template <typename T>
void reset(const char* key, T Config::*field, const std::string& where, Config& c, Rules& rules) {
    const T usual = Config().*field;
    if (c.*field != usual && rules.given(key)) rules.note(key, "{} has no effect with {}", key, where);
    c.*field = usual;
}

void settle_ratio(Config& c, Rules& rules) {
    const PolicyLoss loss = *c.policy_loss;
    RatioLevel& level = c.importance_sampling_level;
    if (!rules.given("importance_sampling_level"))
        level = loss == PolicyLoss::rloo    ? RatioLevel::sequence_sum
                : loss == PolicyLoss::luspo ? RatioLevel::sequence
                                            : RatioLevel::token;
    const auto expect = [&](bool holds, const char* levels) {
        rules.expect(holds, {"importance_sampling_level", "loss_type"},
                     "importance_sampling_level {}: loss_type {} has {}", spell(level), spell(loss), levels);
    };
    if (loss == PolicyLoss::rloo)
        expect(level == RatioLevel::sequence_sum, "sequence_sum only");
    else if (loss == PolicyLoss::cispo)
        expect(level == RatioLevel::token, "token only");
    else
        expect(level != RatioLevel::sequence_sum, "token and sequence");
    if (!rules.given("epsilon_high")) c.epsilon_high = loss == PolicyLoss::cispo ? 5 : c.epsilon;
    const bool clips = loss != PolicyLoss::cispo && loss != PolicyLoss::sapo;
    const std::string where = fmt::format("loss_type {}", spell(loss));
    if (!clips) reset("epsilon", &Config::epsilon, where, c, rules);
    if (loss == PolicyLoss::sapo) reset("epsilon_high", &Config::epsilon_high, where, c, rules);
    rules.expect(c.delta == 0 || clips, {"delta", "loss_type"}, "delta is for losses that clip, {} does not",
                 spell(loss));
    rules.expect(c.delta == 0 || c.delta > 1 + c.epsilon_high, {"delta", "epsilon_high"},
                 "delta {}: expected more than 1 + epsilon_high = {}, or it would take the place of that bound",
                 c.delta, 1 + c.epsilon_high);
    rules.expect(loss == PolicyLoss::sapo || (c.sapo_temperature_pos == Config().sapo_temperature_pos &&
                                              c.sapo_temperature_neg == Config().sapo_temperature_neg),
                 {"sapo_temperature_pos", "sapo_temperature_neg", "loss_type"},
                 "sapo_temperature_* are for loss_type sapo");
}

void settle_importance(Config& c, Rules& rules) {
    const double &low = c.vllm_importance_sampling_clip_min, &high = c.vllm_importance_sampling_clip_max;
    rules.expect(high == 0 || low < high, {"vllm_importance_sampling_clip_min", "vllm_importance_sampling_clip_max"},
                 "vllm_importance_sampling_clip_min {} is not below vllm_importance_sampling_clip_max {}", low, high);
    if (c.vllm_importance_sampling_correction) return;
    const std::string where = "vllm_importance_sampling_correction: false";
    reset("vllm_importance_sampling_mode", &Config::vllm_importance_sampling_mode, where, c, rules);
    reset("vllm_importance_sampling_clip_max", &Config::vllm_importance_sampling_clip_max, where, c, rules);
    reset("vllm_importance_sampling_clip_min", &Config::vllm_importance_sampling_clip_min, where, c, rules);
}

}  // namespace

Section policy_section() {
    using C = Config;
    return {
        "Policy gradients",
        {
            key("old_logps", &C::old_logps,
                "Log-probabilities under the policy that drew the answers. row: what the rows give; a token without "
                "one "
                "has a ratio of 1. start: computed once, with the weights that training starts from, and kept in "
                "prepared_path; right if these drew the answers. none: every ratio is 1, which is right for the first "
                "update alone."),
            key("temperature", &C::temperature,
                "Temperature at which the answers were drawn; in stage distill, at which the teacher's "
                "log-probabilities "
                "were computed. Logits are divided by it in training, too.",
                above(0)),
            key("importance_sampling_level", &C::importance_sampling_level,
                "What a ratio is of: a token; the geometric mean over an answer (sequence: GSPO with loss_type grpo); "
                "or "
                "the whole answer (sequence_sum).")
                .default_is("token; sequence for luspo, sequence_sum for rloo"),
            key("epsilon", &C::epsilon, "A ratio is clipped below at 1 - epsilon.",
                {.low = 0, .high = 1, .low_excluded = true, .high_excluded = false}),
            key("epsilon_high", &C::epsilon_high,
                "A ratio is clipped above at 1 + epsilon_high; DAPO recommends 0.28. For cispo the bound itself.",
                above(0))
                .default_is("epsilon; 5 for cispo"),
            key("delta", &C::delta, "Bound of ratios of answers with a negative advantage (two-sided clip); 0: none.",
                at_least(0)),
            key("use_bias_correction_kl", &C::use_bias_correction_kl,
                "Multiply the estimate of the KL divergence by the ratio, which makes its gradient unbiased."),
            key("max_completion_length", &C::max_completion_length,
                "The constant that dr_grpo divides by: the most tokens that an answer could have had.",
                from_to(0, 1 << 24))
                .default_is("none; dr_grpo needs it"),
            key("sapo_temperature_pos", &C::sapo_temperature_pos,
                "Steepness of sapo's gate for answers with a positive advantage.", above(0)),
            key("sapo_temperature_neg", &C::sapo_temperature_neg, "The same for the other answers.", above(0)),
            key("vllm_importance_sampling_correction", &C::vllm_importance_sampling_correction,
                "Weigh answers by the ratio of old log-probabilities to those that the sampler reported, where rows "
                "give "
                "the latter."),
            key("vllm_importance_sampling_mode", &C::vllm_importance_sampling_mode,
                "That ratio is of a token or of the whole answer. Outside its bounds it becomes 0 (mask) or the bound "
                "(truncate)."),
            key("vllm_importance_sampling_clip_max", &C::vllm_importance_sampling_clip_max,
                "Upper bound of that ratio; 0: none.", at_least(0))
                .also({"vllm_importance_sampling_cap"}),
            key("vllm_importance_sampling_clip_min", &C::vllm_importance_sampling_clip_min,
                "Lower bound of that ratio.", at_least(0)),
        }};
}

void settle_policy(Config& c, Rules& rules) {
    expect_policy_stage(c, rules);
    if (c.stage != Stage::grpo) {
        c.policy_loss.reset();
        return;
    }
    if (!rules.given("num_train_epochs") && c.max_steps == 0) c.num_train_epochs = 1;
    if (!rules.given("learning_rate")) c.learning_rate = c.finetuning_type == Finetuning::lora ? 5e-6 : 1e-6;
    if (!rules.given("beta")) c.beta = 0;
    if (!c.policy_loss) c.policy_loss = PolicyLoss::dapo;
    settle_ratio(c, rules);
    settle_importance(c, rules);
    const bool divides = c.policy_loss == PolicyLoss::dr_grpo;
    rules.expect(!divides || c.max_completion_length > 0, {"max_completion_length", "loss_type"},
                 "loss_type dr_grpo divides by max_completion_length: give the one with which the answers were drawn");
    if (!divides)
        reset("max_completion_length", &Config::max_completion_length,
              fmt::format("loss_type {}; max_length and excess_length decide what is cut", spell(*c.policy_loss)), c,
              rules);
    rules.expect(c.policy_loss != PolicyLoss::rloo || c.beta == 0, {"beta", "loss_type"},
                 "loss_type rloo has its KL divergence in the rewards: subtract it there, and give beta: 0");
    if (c.beta == 0) reset("use_bias_correction_kl", &Config::use_bias_correction_kl, "beta 0", c, rules);
    settle_reference(c, rules, c.beta > 0, "stage grpo with beta 0");
}

}  // namespace colonnade
