// LoRA's keys: their defaults, and the errors.

#include "tests/support/config_text.h"

namespace colonnade {
namespace {

Config with(const std::string& yaml) {
    return read(minimal + yaml);
}

TEST(LoraConfig, SettlesItsDefaults) {
    EXPECT_FALSE(lora_settings(with("")));
    EXPECT_FALSE(lora_settings(with("finetuning_type: full\n")));
    EXPECT_EQ(with("").learning_rate, 2e-5);
    const Config c = with("finetuning_type: lora\n");
    const LoraSettings all{.rank = 16, .alpha = 32, .targets = {lora_modules().begin(), lora_modules().end()}};
    EXPECT_EQ(lora_settings(c), all);
    EXPECT_EQ(c.learning_rate, 1e-4);
    EXPECT_EQ(lora_settings(with("adapter: lora\nlora_target: all-linear\n")), all);
    EXPECT_EQ(lora_settings(with("finetuning_type: lora\nlora_target: [all, q_proj]\n")), all);
    EXPECT_EQ(lora_settings(with("finetuning_type: lora\nlora_r: 4\nlora_dropout: 0.1\nuse_rslora: true\n"
                                 "lora_target: q_proj, v_proj\nlearning_rate: 3e-4\n")),
              (LoraSettings{.rank = 4, .alpha = 8, .dropout = 0.1, .rslora = true, .targets = {"q_proj", "v_proj"}}));
    // The other stages.
    EXPECT_EQ(with("finetuning_type: lora\nstage: dpo\n").learning_rate, 5e-6);
    EXPECT_EQ(with("stage: dpo\n").learning_rate, 1e-6);
    EXPECT_EQ(with("finetuning_type: lora\nstage: rm\n").learning_rate, 1e-4);
    EXPECT_TRUE(lora_settings(with("finetuning_type: lora\nstage: rm\n"))->head);
    EXPECT_FALSE(lora_settings(with("finetuning_type: lora\nstage: dpo\n"))->head);
    EXPECT_TRUE(with("finetuning_type: lora\nstage: dpo\n").precompute_ref_log_probs);
    EXPECT_FALSE(with("finetuning_type: lora\nstage: dpo\nprecompute_ref_log_probs: false\n").precompute_ref_log_probs);
    // Values that adapter_name_or_path settles stay open.
    EXPECT_EQ(with("finetuning_type: lora\nadapter_name_or_path: a\n").lora_rank, 0);
}

TEST(LoraConfig, ResolvedYamlGivesTheSameConfig) {
    for (const char* yaml :
         {"", "finetuning_type: lora\n", "finetuning_type: lora\nadapter_name_or_path: a\n",
          "finetuning_type: lora\nstage: rm\n", "finetuning_type: lora\nstage: dpo\nprecompute_ref_log_probs: false\n",
          "finetuning_type: lora\nlora_target: [o_proj, k_proj]\nexport_merged: true\n", "finetuning_type: qlora\n",
          "finetuning_type: lora\nbase_quantization: fp8\n"}) {
        const std::string resolved = resolved_yaml(with(yaml));
        EXPECT_EQ(resolved_yaml(parse_config(resolved, "resolved").config), resolved);
    }
}

TEST(LoraConfig, RefusesBadSettings) {
    const std::string lora = "finetuning_type: lora\n";
    expect_problems({
        {"base_quantization: nf4", "c.yaml:4:20: base_quantization has no effect without finetuning_type: lora"},
        {lora + "base_quantization: int8",
         "c.yaml:5:20: base_quantization: expected one of none, fp8, nf4, found 'int8'"},
        {lora + "lora_rank: 0", "c.yaml:5:12: lora_rank 0: expected 1 or more"},
        {lora + "lora_rank: -1", "c.yaml:5:12: lora_rank: expected an integer >= 0 and <= 16384, found '-1'"},
        {lora + "lora_alpha: 0", "c.yaml:5:13: lora_alpha 0: the adapters would have no effect"},
        {lora + "lora_dropout: 1", "c.yaml:5:15: lora_dropout: expected a number >= 0 and < 1, found '1'"},
        {lora + "lora_target: none", "c.yaml:5:14: lora_target none: there is nothing to train"},
        {lora + "lora_target: q_proj,lm_head",
         "c.yaml:5:14: lora_target: expected a list of all, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
         "down_proj; or none, found 'q_proj,lm_head'"},
        {"lora_rank: 8", "c.yaml:4:12: lora_rank has no effect without finetuning_type: lora"},
        {"adapter_name_or_path: a", "c.yaml:4:23: adapter_name_or_path has no effect without finetuning_type: lora"},
        {"export_merged: true", "c.yaml:4:16: export_merged has no effect without finetuning_type: lora"},
        {"additional_target: lm_head", "c.yaml:4:20: modules_to_save has no effect without finetuning_type: lora"},
        {lora + "modules_to_save: embed_tokens",
         "c.yaml:5:18: modules_to_save: expected a list of lm_head, score; or none, found 'embed_tokens'"},
        {lora + "modules_to_save: score",
         "c.yaml:5:18: modules_to_save score: stage sft trains no score; only stage rm does"},
        {lora + "stage: rm\nmodules_to_save: lm_head",
         "c.yaml:6:18: modules_to_save lm_head: stage rm trains score whole and nothing else"},
        {"stage: dpo\nprecompute_ref_log_probs: false",
         "c.yaml:5:27: precompute_ref_log_probs: false would keep a second model in memory; use true"},
        {lora + "stage: dpo\nadapter_name_or_path: a\nprecompute_ref_log_probs: false",
         "c.yaml:7:27: precompute_ref_log_probs: false uses the base as the reference, without "
         "adapter_name_or_path; use true"},
        {lora + "stage: dpo\nref_model: a\nprecompute_ref_log_probs: false",
         "c.yaml:7:27: precompute_ref_log_probs: false uses the base as the reference, not ref_model_name_or_path; "
         "use true"},
        {lora + "stage: dpo\nmodules_to_save: lm_head\nprecompute_ref_log_probs: false",
         "c.yaml:7:27: precompute_ref_log_probs: false uses the base as the reference, but modules_to_save trains its "
         "head; use true"},
        {"lora_target: q_proj", "c.yaml:4:14: lora_target has no effect without finetuning_type: lora"},
    });
    const std::string shape =
        "model: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 9}\n"
        "datasets: [{path: a.jsonl}]\noutput_dir: out\nfinetuning_type: lora\n";
    EXPECT_NE(problems(shape).find("finetuning_type lora adapts an existing model"), std::string::npos);
}

}  // namespace
}  // namespace colonnade
