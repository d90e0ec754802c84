// Configs of Axolotl, LLaMA-Factory and TRL: what they mean here, what has no effect, what is refused.

#include <filesystem>

#include "tests/support/config_text.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

struct Case {
    const char* file;
    std::vector<std::string> arguments;
    std::vector<std::string> lines;   ///< of the resolved config
    std::vector<std::string> silent;  ///< keys that must be named as without effect
};

const std::string configs = golden_file("configs");

const Case cases[] = {
    {"axolotl_lora.yml",
     {},
     {"finetuning_type: lora", "lora_rank: 32",
      "lora_target: [down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj]", "max_length: 4096",
      "chat_template: auto", "train_on_eos: turn", "roles_to_train: [assistant]", "evals_per_epoch: 4",
      "saves_per_epoch: 1", "eval_strategy: epoch", "warmup_steps: 10", "num_train_epochs: 4",
      "gradient_checkpointing: block", "    type: messages",
      "    columns: {content: value, messages: conversations, role: from}"},
     {"model_type", "load_in_8bit (off)", "wandb_watch (empty)", "fsdp (empty)",
      "flash_attention (attention is FlashMask)", "tf32", "pad_to_sequence_len", "roles"}},
    {"axolotl_dpo.yml",
     {},
     {"stage: dpo", "beta: 0.05", "packing: false", "chat_template: auto", "max_steps: 500", "num_train_epochs: 0",
      "save_strategy: epoch", "save_steps: 0", "bf16: true", "lora_target: [k_proj, o_proj, q_proj, v_proj]",
      "    columns: {chosen: better, messages: conversation, rejected: worse}", "    split: train"},
     {"ds_type", "load_in_4bit (off)", "wandb_mode"}},
    {"axolotl_full.yml",
     {},
     {"finetuning_type: full", "lr_scheduler_type: cosine_with_min_lr", "min_lr_rate: 0.1",
      "  - path: instructions.jsonl", "  - path: held_out.jsonl", "gradient_checkpointing: block",
      "offload_activations: true", "report_to: [wandb]", "project: mistral"},
     {"plugins", "liger_rope", "save_only_model"}},
    {"axolotl_kd.yml",
     {},
     {"stage: distill", "beta: 0.25", "kd_alpha: 0.9", "kd_ce_alpha: 0.1", "temperature: 1", "    type: messages",
      "    columns: {logprobs: teacher_output, messages: conversation}"},
     {"kd_temperature", "kd_normalize_topk (off)"}},
    {"llama_factory_sft.yaml",
     {"dataset_dir=" + configs},
     {"stage: sft", "finetuning_type: lora", "lora_rank: 8", "chat_template: auto", "ddp_timeout: 180000000",
      "  - path: " + configs + "/identity.json", "  - path: " + configs + "/alpaca_demo.json",
      "    columns: {input: context, instruction: question, output: answer}", "    max_samples: 1000", "report_to: []",
      "dataset_num_proc: 16", "eval_steps: 500"},
     {"plot_loss", "do_train", "overwrite_cache"}},
    {"llama_factory_dpo.yaml",
     {"dataset_dir=" + configs},
     {"stage: dpo", "loss_type: [sigmoid, sft]", "loss_weights: [1, 0.25]", "chat_template: llama3",
      "warmup_ratio: 0.1", "num_train_epochs: 3", "max_steps: 0", "save_strategy: no", "packing: false",
      "  - path: " + configs + "/pairs.json"},
     {"deepspeed", "flash_attn", "logging_strategy"}},
    {"llama_factory_pt.yaml",
     {"dataset_dir=" + configs},
     {"stage: pt", "lr_scheduler_type: cosine_with_min_lr", "min_lr_rate: 0.1", "max_steps: 2000", "    type: text",
      "report_to: [jsonl, tensorboard]", "chat_template: auto"},
     {"pure_bf16 (off)", "streaming (off)"}},
    {"trl_sft.yaml",
     {},
     {"finetuning_type: lora", "lora_rank: 32", "  - path: chats.jsonl", "packing: true", "report_to: [wandb]",
      "run_name: first", "save_steps: 200", "train_on_prompt: false"},
     {"dtype", "attn_implementation", "assistant_only_loss (the default)", "push_to_hub", "streaming (off)"}},
    {"trl_dpo.yaml",
     {"stage=dpo"},
     {"stage: dpo", "loss_type: [sigmoid, sft]", "loss_weights: [1, 0.5]", "precompute_ref_log_probs: true",
      "lr_power: 2", "min_lr: 1e-07"},
     {"max_prompt_length", "truncation_mode", "generate_during_eval (off)"}},
    {"trl_reward.yaml",
     {"stage=rm"},
     {"stage: rm", "center_rewards_coefficient: 0.01", "lr_scheduler_type: wsd", "wsd_decay_steps: 100",
      "wsd_decay_type: linear", "warmup_steps: 50"},
     {"dataloader_num_workers", "label_names (empty)"}},
};

TEST(PortedConfigs, SayTheSameHere) {
    for (const Case& c : cases) {
        SCOPED_TRACE(c.file);
        const LoadedConfig loaded = load_config(configs + "/" + c.file, c.arguments);
        const std::string yaml = "\n" + resolved_yaml(loaded.config);
        for (const std::string& line : c.lines)
            EXPECT_NE(yaml.find("\n" + line + "\n"), std::string::npos) << line << yaml;
        const std::string notices = fmt::format("{}", fmt::join(loaded.notices, "\n"));
        for (const std::string& key : c.silent) {
            const size_t place = notices.find("without effect here: ");
            ASSERT_NE(place, std::string::npos) << notices;
            EXPECT_NE(notices.find(key, place), std::string::npos) << key << '\n' << notices;
        }
        // What is resolved needs no rewriting.
        EXPECT_EQ(resolved_yaml(parse_config(resolved_yaml(loaded.config), "resolved").config),
                  resolved_yaml(loaded.config));
    }
}

TEST(PortedConfigs, RefuseWhatWouldChangeTheResult) {
    expect_problems({
        {"load_in_8bit: true", "c.yaml:4:15: load_in_8bit: 'true' is not supported: use base_quantization: fp8 or nf4"},
        {"quantization_bit: 3",
         "c.yaml:4:19: quantization_bit: '3' is not supported: use 4, or base_quantization: fp8"},
        {"bnb_4bit_quant_type: fp4",
         "c.yaml:4:22: bnb_4bit_quant_type: 'fp4' is not supported: 4 bits are bitsandbytes' nf4 here"},
        {"fp16: true",
         "c.yaml:4:7: fp16: 'true' is not supported: GPUs compute in bf16 with fp32 master weights: bf16: auto"},
        {"stage: grpo\nuse_vllm: true",
         "c.yaml:5:11: use_vllm: 'true' is not supported: nothing is sampled or scored in training: draw answers with "
         "colonnade generate or another sampler, score them, and give them as rows with stage: grpo"},
        {"stage: grpo\nnum_iterations: 2", "c.yaml:5:17: num_iterations: '2' is not supported: there is only 1"},
        {"rl: ppo", "c.yaml:4:5: rl: 'ppo' is not supported: stages here are pt, sft, dpo, rm, kto, grpo and distill"},
        {"added_tokens_overrides: {128: <x>}",
         "c.yaml:4:25: added_tokens_overrides: {128: <x>} is not supported: give new tokens by add_special_tokens "
         "or add_tokens"},
        {"unfrozen_parameters: ['^lm_head.weight$', 'model.embed_tokens.weight$[:32000]']",
         "c.yaml:4:43: unfrozen_parameters: \"model.embed_tokens.weight$[:32000]\" is not supported: a range of rows; "
         "parameters are trained whole"},
        {"optim: lion_8bit",
         "c.yaml:4:8: optim: 'lion_8bit' is not supported: use adamw_8bit, whose moments take 2.1 bytes per parameter"},
        {"rl: dpo\nstage: sft", "c.yaml:4:5: 'rl' means stage: 'dpo', but c.yaml:5:8 says 'sft'"},
        {"eval_steps: 0.2\nval_size: 9",
         "c.yaml:4:13: eval_steps: '0.2' is not supported: a share of the run; give a number of steps, or "
         "evals_per_epoch"},
    });
}

TEST(PortedConfigs, SaysWhatIsLearnedAndHow) {
    const auto resolved = [](const std::string& yaml) {
        return resolved_yaml(parse_config(minimal + yaml, "c.yaml").config);
    };
    const std::pair<const char*, const char*> pairs[] = {
        {"optim: paged_adamw_8bit", "optim: adamw_8bit"},
        {"optimizer: adamw_bnb_8bit", "optim: adamw_8bit"},
        {"optim: paged_adamw_32bit", "optim: adamw\n"},
        {"use_muon: true", "optim: muon"},
        {"unfrozen_parameters:\n  - model.layers.2[0-9]+.mlp\n  - ^lm_head.weight$", "finetuning_type: freeze"},
        {"finetuning_type: freeze\nfreeze_trainable_modules: all", "freeze_trainable_layers: 2"},
        {"noisy_embedding_alpha: 5", "neftune_noise_alpha: 5"},
        {"fp8: true\nfp8_backend: auto", "compute: fp8"},
        {"fp8: false", "compute: bf16"},
        {"special_tokens:\n  pad_token: <|pad|>\n  bos_token:\n  additional_special_tokens: [<a>]",
         "add_special_tokens: [<a>]"},
        {"special_tokens:\n  pad_token: <|pad|>\n  bos_token:", "special_tokens: {pad_token: <|pad|>}"},
        {"eos_token: <|im_end|>", "special_tokens: {eos_token: <|im_end|>}"},
        {"tokens: [<b>, <a>]", "add_tokens: [<b>, <a>]"},
        {"new_special_tokens: <b>,<a>", "add_special_tokens: [<b>, <a>]"},
        {"resize_token_embeddings_to_32x: true", "pad_vocab_to_multiple_of: 32"},
    };
    for (const char* const key : {"adapter: qlora", "adapter: qlora\nload_in_4bit: true",
                                  "adapter: lora\nload_in_4bit: true\nbnb_4bit_quant_type: nf4",
                                  "finetuning_type: lora\nquantization_bit: 4\nquantization_method: bnb"}) {
        const std::string yaml = resolved(std::string(key) + '\n');
        EXPECT_NE(yaml.find("\nbase_quantization: nf4\n"), std::string::npos) << key << yaml;
        EXPECT_NE(yaml.find("\nfinetuning_type: lora\n"), std::string::npos) << key << yaml;
    }
    for (const auto& [yaml, line] : pairs)
        EXPECT_NE(resolved(std::string(yaml) + '\n').find(line), std::string::npos) << yaml << "\n" << line;
}

TEST(PortedConfigs, OffloadedActivationsAreTheInputsOfRecomputedBlocks) {
    struct {
        const char *yaml, *recompute, *offload;
    } const ported[] = {
        {"gradient_checkpointing: offload", "block", "true"},
        {"gradient_checkpointing: unsloth", "block", "true"},
        {"gradient_checkpointing: true", "block", "false"},
        {"gradient_checkpointing: true\nactivation_offloading: true", "block", "true"},
        {"gradient_checkpointing: true\nactivation_offloading: legacy", "block", "true"},
        {"activation_offloading: disk", "block", "true"},
        {"activation_offloading: true\ngradient_checkpointing: false", "none", "true"},
        {"activation_offloading: false", "none", "false"},
        {"use_unsloth_gc: true", "block", "true"},
        {"use_unsloth_gc: false", "none", "false"},
        {"enable_activation_checkpointing: true\nenable_activation_offloading: true", "block", "true"},
        {"gradient_checkpointing: true\ngradient_checkpointing_kwargs: {use_reentrant: false}", "block", "false"},
        {"gradient_checkpointing: true\ngradient_checkpointing_kwargs: {offload: true}", "block", "true"},
        {"offload_activations: 8", "none", "8"},
    };
    for (const auto& [yaml, recompute, offload] : ported) {
        const LoadedConfig loaded = parse_config(minimal + yaml + "\n", "c.yaml");
        const std::string resolved = resolved_yaml(loaded.config);
        for (const auto& [key, value] :
             {std::pair("gradient_checkpointing", recompute), {"offload_activations", offload}})
            EXPECT_NE(resolved.find(fmt::format("\n{}: {}\n", key, value)), std::string::npos) << yaml << resolved;
    }
    const LoadedConfig disk = parse_config(minimal + "gradient_checkpointing: offload_disk\n", "c.yaml");
    EXPECT_EQ(disk.notices, (std::vector<std::string>{
                                "c.yaml:4:1: 'gradient_checkpointing' offload_disk: to host memory, not to a disk",
                                "c.yaml:4:1: 'gradient_checkpointing' is read as offload_activations: true"}));
    EXPECT_EQ(read(minimal + "gradient_checkpointing: offload\n", {"offload_activations=false"}).offload_activations,
              BlockCount());
    expect_problems({{"offload_activations: -1",
                      "c.yaml:4:22: offload_activations: expected true, false or a number of blocks, found '-1'"}});
}

TEST(PortedConfigs, FindingTheBatchSizeIsFitting) {
    EXPECT_EQ(read(minimal + "auto_find_batch_size: true\n").fit, Fit::automatic);
    const LoadedConfig off = parse_config(minimal + "auto_find_batch_size: false\n", "c.yaml");
    EXPECT_EQ(off.config.fit, Fit::off);
    EXPECT_EQ(off.notices.size(), 1u);
}

TEST(PortedConfigs, TypingErrorsStayErrors) {
    expect_problems({
        {"packng: false", "c.yaml:4:1: unknown key 'packng' (did you mean 'packing'?)"},
        {"frobnicate: true", "c.yaml:4:1: unknown key 'frobnicate'"},
    });
    const LoadedConfig off = parse_config(minimal + "frobnicate: false\nplugh:\n", "c.yaml");
    ASSERT_EQ(off.notices.size(), 1u);
    EXPECT_EQ(off.notices[0], "c.yaml: without effect here: frobnicate (unknown, and off), plugh (empty)");
}

TEST(PortedConfigs, TheCommandLineWins) {
    EXPECT_EQ(read(minimal + "rl: dpo\n", {"stage=sft"}).stage, Stage::sft);
    EXPECT_EQ(read(minimal + "stage: sft\n", {"--rl", "dpo"}).stage, Stage::dpo);
    const Config steps = read(minimal + "num_train_epochs: 3\nsave_strategy: steps\nsave_steps: 5\n",
                              {"max_steps=100", "save_strategy=no"});
    EXPECT_EQ(steps.max_steps, 100);
    EXPECT_EQ(steps.num_train_epochs, 0);
    EXPECT_EQ(steps.save_strategy, Every::never);
    EXPECT_EQ(read(minimal + "adapter: lora\nlora_r: 8\n", {"finetuning_type=full"}).lora_rank, 0);
}

TEST(PortedConfigs, ANamedDataSetMustExist) {
    const std::string base = "model_name_or_path: m\noutput_dir: o\ndataset_dir: " + configs + "\n";
    EXPECT_EQ(
        problems(base + "dataset: nothing\n"),
        "c.yaml: 2 problems\n  c.yaml:4:10: dataset: 'nothing' is not supported: 'nothing' is neither a file nor an "
        "entry of " +
            configs +
            "/dataset_info.json; give datasets: [{path: train.jsonl}]\n"
            "  c.yaml: datasets is missing: expected a list such as [{path: train.jsonl}]");
}

TEST(PortedConfigs, RevisionsAndFilesBecomePartsOfNames) {
    const std::string base = "output_dir: o\ndataset_dir: " + configs + "\n";
    const auto with = [&](const std::string& model, const std::string& data) {
        return read(base + model + "\n" + data + "\n");
    };
    EXPECT_EQ(with("model_name_or_path: o/m\nmodel_revision: v1", "dataset: remote").model_name_or_path, "o/m@v1");
    EXPECT_EQ(with("base_model: o/m\nrevision_of_model: main", "dataset: remote").model_name_or_path, "o/m");
    const auto path = [&](const std::string& data) { return with("base_model: o/m", data).datasets.at(0).path; };
    EXPECT_EQ(path("dataset: remote"), "org/name");
    EXPECT_EQ(path("dataset: o/d"), "o/d");
    EXPECT_EQ(path("datasets: [{path: o/d, revision: v2}]"), "o/d@v2");
    EXPECT_EQ(path("datasets: [{path: o/d, data_files: a.jsonl}]"), "o/d/a.jsonl");
    EXPECT_EQ(path("datasets: [{path: o/d, data_files: a.jsonl, revision: v2}]"), "o/d@v2/a.jsonl");
    EXPECT_EQ(path("datasets: [{path: json, data_files: a.jsonl}]"), "a.jsonl");
}

TEST(PortedConfigs, HomeIsExpanded) {
    const std::string home = std::getenv("HOME") ? std::getenv("HOME") : "";
    const Config c = read("model_name_or_path: ~/m\noutput_dir: ~/o\ndatasets: [{path: ~/d/*.jsonl}]\n");
    EXPECT_EQ(c.model_name_or_path, home + "/m");
    EXPECT_EQ(c.tokenizer_name_or_path, home + "/m");
    EXPECT_EQ(c.output_dir, home + "/o");
    EXPECT_EQ(c.datasets.at(0).path, home + "/d/*.jsonl");
}

}  // namespace
}  // namespace colonnade
