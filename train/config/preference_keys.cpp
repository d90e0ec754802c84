#include "train/config/preference_keys.h"

namespace colonnade {
namespace {

using C = Config;

bool has(const Config& c, PreferenceLoss loss) {
    return std::find(c.loss_type.begin(), c.loss_type.end(), loss) != c.loss_type.end();
}

/// A list of names, or one name without brackets. For an unknown name the error suggests the nearest one. Which names a
/// stage has, expect_preference_stage() and settle_policy() check.
Key<Config> loss_type_key(const char* doc) {
    Key<Config> key{.name = "loss_type",
                    .doc = doc,
                    .what = fmt::format("one or a list of {}; in stage kto one of {}; in stage grpo one of {}",
                                        spelled_choices<PreferenceLoss>(), spelled_choices<UnpairedLoss>(),
                                        spelled_choices<PolicyLoss>())};
    key.read = [what = key.what](const ConfigNode& node, const std::string& label, Config& config, Reading& reading) {
        std::vector<std::string> names;
        for (const auto& s : spellings<PreferenceLoss>) names.push_back(s.name);
        for (const auto& s : spellings<UnpairedLoss>) names.push_back(s.name);
        for (const auto& s : spellings<PolicyLoss>) names.push_back(s.name);
        const auto wrong = [&](const ConfigNode& item) {
            const std::string nearest =
                item.kind == ConfigNode::Kind::scalar ? nearest_name(item.text, names) : std::string();
            reading.problems.add(item.where, "{}: expected {}, found {}{}", label, what, item.found(),
                                 nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest));
            reading.unreadable.insert(label);
        };
        const bool one = node.kind == ConfigNode::Kind::sequence && node.children.size() == 1;
        PolicyLoss policy;
        if (ValueFormat<PolicyLoss>::read(one ? node.children[0] : node, {}, policy))
            return void(config.policy_loss = policy);
        config.loss_type.clear();
        config.unpaired_loss.reset();
        const auto add = [&](const ConfigNode& item) {
            PreferenceLoss loss;
            UnpairedLoss unpaired;
            if (ValueFormat<PreferenceLoss>::read(item, {}, loss)) return config.loss_type.push_back(loss);
            if (!ValueFormat<UnpairedLoss>::read(item, {}, unpaired)) return wrong(item);
            if (config.unpaired_loss)
                reading.problems.add(item.where, "{}: stage kto has one loss, found {} as well", label, item.found());
            config.unpaired_loss = unpaired;
        };
        if (node.kind != ConfigNode::Kind::sequence) return add(node);
        if (node.children.empty()) return wrong(node);
        for (const ConfigNode& item : node.children) add(item);
    };
    key.write = [](YAML::Emitter& out, const Config& config) {
        if (config.unpaired_loss) return void(out << spell(*config.unpaired_loss));
        if (config.policy_loss) return void(out << spell(*config.policy_loss));
        out << YAML::Flow << YAML::BeginSeq;
        for (const PreferenceLoss loss : config.loss_type) out << spell(loss);
        out << YAML::EndSeq;
    };
    return std::move(key)
        .also({"pref_loss", "dpo_loss_type"})
        .default_is("sigmoid; kto in stage kto, dapo in stage grpo");
}

Key<Config> loss_weights_key(const char* doc) {
    Key<Config> key{.name = "loss_weights", .doc = doc, .what = "a list of numbers > 0"};
    key.read = [what = key.what](const ConfigNode& node, const std::string& label, Config& config, Reading& reading) {
        config.loss_weights.clear();
        bool fits = node.kind == ConfigNode::Kind::sequence;
        for (const ConfigNode& item : node.children) {
            double weight = 0;
            fits = fits && ValueFormat<double>::read(item, above(0), weight);
            config.loss_weights.push_back(weight);
        }
        if (fits) return;
        reading.problems.add(node.where, "{}: expected {}, found {}", label, what, node.found());
        reading.unreadable.insert(label);
    };
    key.write = [](YAML::Emitter& out, const Config& config) {
        out << YAML::Flow << YAML::BeginSeq;
        for (const double weight : config.loss_weights) out << fmt::format("{}", weight);
        out << YAML::EndSeq;
    };
    return std::move(key).default_is("1 for each of loss_type");
}

/// Keys of one stage must keep their defaults in the others.
void expect_preference_stage(const Config& c, Rules& rules) {
    const Config defaults;
    const auto expect = [&](Stage stage, const char* key, bool untouched) {
        rules.expect(c.stage == stage || untouched, {key, "stage"},
                     "{} is for stage {}, this is stage {}: set stage: {}", key, spell(stage), spell(c.stage),
                     spell(stage));
    };
    const bool grpo = c.stage == Stage::grpo;  // it has keys of these names, too (train/config/policy_keys.h)
    const auto expect_reference = [&](const char* key, bool untouched) {
        rules.expect(c.stage == Stage::dpo || c.stage == Stage::kto || grpo || untouched, {key, "stage"},
                     "{} is for stages dpo, kto and grpo, this is stage {}", key, spell(c.stage));
    };
    expect(Stage::dpo, "loss_type", grpo || c.loss_type == defaults.loss_type || c.unpaired_loss);
    expect(Stage::kto, "loss_type", !c.unpaired_loss);
    rules.expect(
        c.stage == Stage::distill || c.stage == Stage::dpo || c.stage == Stage::kto || grpo || c.beta == defaults.beta,
        {"beta", "stage"}, "beta is for stages dpo, kto, grpo and distill, this is stage {}", spell(c.stage));
    expect(Stage::dpo, "label_smoothing", c.label_smoothing == defaults.label_smoothing);
    expect(Stage::dpo, "simpo_gamma", c.simpo_gamma == defaults.simpo_gamma);
    expect_reference("precompute_ref_log_probs", !c.precompute_ref_log_probs);
    expect_reference("ref_model_name_or_path", c.ref_model_name_or_path.empty());
    expect(Stage::kto, "desirable_weight", c.desirable_weight == 1);
    expect(Stage::kto, "undesirable_weight", c.undesirable_weight == 1);
    expect(Stage::rm, "reward_loss", c.reward_loss == defaults.reward_loss);
    expect(Stage::rm, "center_rewards_coefficient", c.center_rewards_coefficient == 0);
    rules.expect(c.rows() == RowKind::preferences || c.ranking_pairs == defaults.ranking_pairs,
                 {"ranking_pairs", "stage"}, "ranking_pairs is for stages dpo and rm, this is stage {}",
                 spell(c.stage));
    rules.expect(c.reward_loss == RankingKind::pairwise || c.ranking_pairs == RankedPairs::all,
                 {"ranking_pairs", "reward_loss"},
                 "ranking_pairs: best compares pairs, reward_loss: plackett_luce uses the whole ranking");
}

/// Stage kto: one loss of its own, which is not weighed.
void settle_unpaired_loss(Config& c, Rules& rules) {
    const Config defaults;
    if (!rules.given("loss_type")) c.unpaired_loss = c.unpaired_loss.value_or(UnpairedLoss::kto);
    rules.expect(c.unpaired_loss && (!rules.given("loss_type") || c.loss_type.empty()), {"loss_type", "stage"},
                 "loss_type: stage kto expects one of {}", spelled_choices<UnpairedLoss>());
    rules.expect(c.loss_weights == std::vector<double>{1}, {"loss_weights"},
                 "loss_weights is for the losses of stage dpo; stage kto has one");
    c.loss_type = defaults.loss_type;
    c.loss_weights = {1};
}

void settle_losses(Config& c, Rules& rules) {
    rules.expect(c.loss_weights.size() == c.loss_type.size(), {"loss_weights", "loss_type"},
                 "loss_weights has {} numbers for the {} losses of loss_type", c.loss_weights.size(),
                 c.loss_type.size());
    const std::set<PreferenceLoss> distinct(c.loss_type.begin(), c.loss_type.end());
    rules.expect(distinct.size() == c.loss_type.size(), {"loss_type"}, "loss_type names a loss twice");

    const bool sft = has(c, PreferenceLoss::sft), alone = c.loss_type.size() == 1;
    rules.expect(!sft || !alone, {"loss_type"},
                 "loss_type sft alone compares nothing: use stage sft on the chosen answers");
    rules.expect(!sft || !has(c, PreferenceLoss::orpo), {"loss_type"},
                 "loss_type orpo already contains the sft term; beta weighs it");
    const auto with = std::find_if(c.loss_type.begin(), c.loss_type.end(), needs_reference);
    for (const PreferenceLoss loss : {PreferenceLoss::simpo, PreferenceLoss::orpo})
        rules.expect(!has(c, loss) || with == c.loss_type.end(), {"loss_type"},
                     "loss_type mixes {}, which needs a reference model, with {}, which needs none",
                     spell(with == c.loss_type.end() ? loss : *with), spell(loss));

    const bool smooths =
        has(c, PreferenceLoss::sigmoid) || has(c, PreferenceLoss::robust) || has(c, PreferenceLoss::exo_pair);
    rules.expect(c.label_smoothing == 0 || smooths, {"label_smoothing", "loss_type"},
                 "label_smoothing is for loss_type sigmoid, robust and exo_pair");
    rules.expect(c.label_smoothing > 0 || !has(c, PreferenceLoss::exo_pair), {"label_smoothing", "loss_type"},
                 "loss_type exo_pair needs label_smoothing above 0, such as 0.001");
    rules.expect(c.simpo_gamma == Config().simpo_gamma || has(c, PreferenceLoss::simpo), {"simpo_gamma", "loss_type"},
                 "simpo_gamma is for loss_type simpo");
}

}  // namespace

void settle_reference(Config& c, Rules& rules, bool needed, const std::string& what) {
    if (!rules.given("precompute_ref_log_probs")) c.precompute_ref_log_probs = needed;
    rules.expect(needed || (!c.precompute_ref_log_probs && c.ref_model_name_or_path.empty()),
                 {"ref_model_name_or_path", "precompute_ref_log_probs", "loss_type", "beta"},
                 "{} uses no reference model", what);
    if (!needed || c.precompute_ref_log_probs) return;
    // While adapters are trained, only the base is in memory: training must start from the bare base.
    const char* const obstacle =
        c.finetuning_type != Finetuning::lora ? "would keep a second model in memory"
        : !c.ref_model_name_or_path.empty()   ? "uses the base as the reference, not ref_model_name_or_path"
        : !c.adapter_name_or_path.empty()     ? "uses the base as the reference, without adapter_name_or_path"
        : !c.modules_to_save.empty()          ? "uses the base as the reference, but modules_to_save trains its head"
                                              : nullptr;
    rules.expect(!obstacle, {"precompute_ref_log_probs"}, "precompute_ref_log_probs: false {}; use true",
                 obstacle ? obstacle : "");
}

Section preference_section() {
    return {
        "Preferences and rewards",
        {
            loss_type_key("Stage dpo: one loss, or several to be added up with weights. Stage kto: one of its own. "
                          "docs/preference.md defines them. Stage grpo: one loss; docs/grpo.md."),
            loss_weights_key("Weights of the losses in loss_type."),
            key("beta", &C::beta,
                "Strength of the pull towards the reference; for simpo the scale of the mean log-probability, for orpo "
                "the weight of the odds ratio, in stage grpo the weight of the KL divergence. In stage distill 0 is "
                "the "
                "forward KL from the teacher, 1 the reverse KL, and a number between the generalised Jensen-Shannon "
                "divergence.",
                at_least(0))
                .also({"pref_beta", "rl_beta", "kd_beta"})
                .default_is("0.1; 0 in stages grpo and distill"),
            key("label_smoothing", &C::label_smoothing,
                "Share of pairs that are assumed to be labelled the wrong way round.", from_to_below(0, 0.5))
                .also({"dpo_label_smoothing"}),
            key("simpo_gamma", &C::simpo_gamma, "Target margin of simpo.", at_least(0)),
            key("desirable_weight", &C::desirable_weight,
                "Stage kto: weight of the losses of desirable answers. The divisor does not contain it.", above(0))
                .also({"kto_chosen_weight", "kto_desirable_weight"}),
            key("undesirable_weight", &C::undesirable_weight, "The same of undesirable answers.", above(0))
                .also({"kto_rejected_weight", "kto_undesirable_weight"}),
            key("precompute_ref_log_probs", &C::precompute_ref_log_probs,
                "Compute the reference's log-probabilities once, before training, and keep them in prepared_path. "
                "false, only with finetuning_type lora: compute them for every batch with the base, without adapters.")
                .default_is("true if the loss needs a reference"),
            key("ref_model_name_or_path", &C::ref_model_name_or_path,
                "Folder, GGUF file or name of the reference model, which must have the same shape and tokenizer.")
                .also({"ref_model"})
                .default_is("the model that training starts from"),
            key("reward_loss", &C::reward_loss,
                "Stage rm: pairwise compares the answers of a sample two by two; plackett_luce uses the likelihood of "
                "the whole ranking. For pairs they are the same."),
            key("center_rewards_coefficient", &C::center_rewards_coefficient,
                "Weight of the squared sum of two answers' rewards, which centres rewards at 0; 0.01 is usual.",
                at_least(0)),
            key("ranking_pairs", &C::ranking_pairs,
                "Rows with more than two answers: all compares each with every later one, best the best one with each "
                "other."),
        }};
}

void settle_preferences(Config& c, Rules& rules) {
    const bool dpo = c.stage == Stage::dpo, kto = c.stage == Stage::kto;
    if (!rules.given("loss_weights")) c.loss_weights.assign(kto ? 1 : c.loss_type.size(), 1.0);
    if ((dpo || kto || c.stage == Stage::rm) && !rules.given("num_train_epochs") && c.max_steps == 0)
        c.num_train_epochs = 1;
    if ((dpo || kto) && !rules.given("learning_rate"))
        c.learning_rate = c.finetuning_type == Finetuning::lora ? 5e-6 : 1e-6;
    if (kto) settle_unpaired_loss(c, rules);
    expect_preference_stage(c, rules);
    if (dpo || kto)
        rules.expect(c.beta > 0, {"beta", "stage"}, "beta: expected a number > 0 in stage {}, found 0", spell(c.stage));
    if (dpo) settle_losses(c, rules);
    if (kto) return settle_reference(c, rules, true, "stage kto");
    if (!dpo || c.loss_type.empty()) return;  // refused when it was read
    settle_reference(c, rules, std::any_of(c.loss_type.begin(), c.loss_type.end(), needs_reference),
                     fmt::format("loss_type {}", spell(c.loss_type.front())));
}

}  // namespace colonnade
