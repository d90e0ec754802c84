#include "train/config/config.h"

#include <cstdlib>
#include <map>

#include "engine/io/files.h"
#include "tests/support/config_text.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

using ConfigFileTest = FileTest;

TEST_F(ConfigFileTest, IsReadFromAFile) {
    spill(path("run.yaml"), minimal + "seed: 7\n");
    EXPECT_EQ(load_config(path("run.yaml"), {"max_steps=3"}).config.seed, 7);
    expect_error(Exit::config, path("none.yaml"), [&] { load_config(path("none.yaml")); });
    spill(path("bad.yaml"), minimal + "seed: -7\n");
    expect_error(Exit::config, path("bad.yaml") + ":4:7: seed: expected", [&] { load_config(path("bad.yaml")); });
}

// --- Aliases and arguments ---

TEST(Config, AliasesAreReadAndReported) {
    const LoadedConfig loaded = parse_config(
        "base_model: m\ndatasets: [{path: a}]\noutput_dir: o\nsequence_len: 64\nmicro_batch_size: 3\n"
        "auto_resume_from_checkpoints: true\noptim: adamw_torch\nexcess_length_strategy: raise\n",
        "c.yaml", {"lr=1e-3"});
    EXPECT_EQ(loaded.config.model_name_or_path, "m");
    EXPECT_EQ(loaded.config.max_length, 64);
    EXPECT_EQ(loaded.config.per_device_train_batch_size, 3);
    EXPECT_EQ(loaded.config.learning_rate, 1e-3);
    EXPECT_EQ(loaded.config.resume_from_checkpoint, "auto");
    EXPECT_EQ(loaded.config.excess_length, ExcessLength::error);
    EXPECT_EQ(loaded.notices, (std::vector<std::string>{
                                  "c.yaml:1:1: 'base_model' is read as 'model_name_or_path'",
                                  "c.yaml:4:1: 'sequence_len' is read as 'max_length'",
                                  "c.yaml:5:1: 'micro_batch_size' is read as 'per_device_train_batch_size'",
                                  "c.yaml:6:1: 'auto_resume_from_checkpoints' is read as 'resume_from_checkpoint'",
                                  "c.yaml:8:1: 'excess_length_strategy' is read as 'excess_length'",
                                  "argument 'lr=1e-3': 'lr' is read as 'learning_rate'",
                              }));
}

TEST(Config, ArgumentsOverrideTheFileInAllSpellings) {
    const Config c = read(minimal + "cutoff_len: 64\nval_size: 5\n",
                          {"max_length=128", "--packing-length=256", "--seed", "3", "seed=4", "report_to=[jsonl]",
                           "datasets[0].path=b.jsonl", "datasets[1]={path: c.jsonl, type: text}",
                           "datasets[1].columns.text=body", "val_size=", "--train-on-prompt", "true"});
    EXPECT_EQ(c.max_length, 128);
    EXPECT_EQ(c.packing_length, 256);
    EXPECT_EQ(c.seed, 4);
    EXPECT_EQ(c.report_to, std::set<Report>{Report::jsonl});
    ASSERT_EQ(c.datasets.size(), 2u);
    EXPECT_EQ(c.datasets[0].path, "b.jsonl");
    EXPECT_EQ(c.datasets[1].type, "text");
    EXPECT_EQ(c.datasets[1].columns, (std::map<std::string, std::string>{{"text", "body"}}));
    EXPECT_EQ(c.val_size, 0);
    EXPECT_TRUE(c.train_on_prompt);
}

TEST(Config, ArgumentsCanMakeAWholeConfig) {
    const Config c =
        read("", {"model.hidden_size=64", "model.intermediate_size=96", "model.num_hidden_layers=2",
                  "model.num_attention_heads=4", "model.vocab_size=100", "datasets[0].path=a", "output_dir=o"});
    EXPECT_EQ(c.model->head_dim, 16);
    EXPECT_EQ(c.datasets[0].path, "a");
}

TEST(Config, WrongArgumentsAreNamed) {
    const struct {
        std::vector<std::string> arguments;
        std::string message;
    } cases[] = {
        {{"learning_rat=1"}, "argument 'learning_rat=1': unknown key 'learning_rat' (did you mean 'learning_rate'?)"},
        {{"--max-length", "x"},
         "argument '--max-length x': max_length: expected an integer >= 2 and <= 16777216, found 'x'"},
        {{"--packing"}, "argument '--packing': expected key=value, --key=value or --key value"},
        {{"--packing", "--seed=1"}, "argument '--packing': expected key=value, --key=value or --key value"},
        {{"=3"}, "argument '=3': expected key=value, --key=value or --key value"},
        {{"seed.x=3", "seed=5", "seed.y=1"}, "argument 'seed.y=1': expected a map that holds 'y', found '5'"},
        {{"output_dir[0]=3"}, "argument 'output_dir[0]=3': expected a list for 'output_dir', found 'out'"},
        {{"datasets[2].path=b"},
         "argument 'datasets[2].path=b': index 2 of 'datasets' is past its end: it has 1 items"},
        {{"datasets[x].path=b"},
         "argument 'datasets[x].path=b': 'datasets[x].path' is not a key: expected a name such as max_length or "
         "datasets[0].path"},
        {{"a..b=1"}, "argument 'a..b=1': 'a..b' is not a key: expected a name such as max_length or datasets[0].path"},
        {{"seed=[1"}, "argument 'seed=[1': this is not valid YAML: end of sequence flow not found"},
        {{"seed=&a 1"}, "argument 'seed=&a 1': anchors (&name) are not allowed in a config"},
    };
    for (const auto& c : cases) EXPECT_EQ(problems(minimal, c.arguments), c.message);
}

// --- Defaults, printing, changes ---

TEST(Config, SettlesDefaultsThatDependOnOtherKeys) {
    Config c = read(minimal + "max_length: 100\nseed: 5\nper_device_train_batch_size: 3\nval_size: 0.1\n");
    EXPECT_EQ(c.tokenizer_name_or_path, "models/m");
    EXPECT_EQ(c.packing_length, 100);
    EXPECT_EQ(c.data_seed, 5);
    EXPECT_EQ(c.per_device_eval_batch_size, 3);
    EXPECT_EQ(c.eval_strategy, Every::epoch);
    EXPECT_EQ(c.prepared_path, "out/prepared");
    EXPECT_EQ(c.adam_beta2, 0.999);

    c = read(minimal +
             "stage: pt\nmax_steps: 9\npacking: false\nwarmup_steps: 2\nval_size: 5\neval_steps: 4\nsave_steps: 3\n");
    EXPECT_EQ(c.adam_beta2, 0.95);
    EXPECT_EQ(c.num_train_epochs, 0);
    EXPECT_EQ(c.packing_strategy, PackStrategy::none);
    EXPECT_FALSE(c.eval_packing);
    EXPECT_EQ(c.warmup_ratio, 0);
    EXPECT_EQ(c.eval_strategy, Every::steps);
    EXPECT_EQ(c.save_strategy, Every::steps);

    EXPECT_FALSE(read(minimal + "packing_strategy: none\n").packing);
    EXPECT_EQ(read(minimal + "lr_scheduler_type: constant\n").warmup_ratio, 0);
    EXPECT_EQ(read(minimal + "lr_scheduler_type: warmup_stable_decay\n").wsd_decay_ratio, 0.1);
    EXPECT_EQ(read(minimal + "packing:\nseed: ~\n").seed, 42);
}

TEST(Config, SettlesPreferenceDefaultsByStage) {
    const Config dpo = read(minimal + "stage: dpo\npref_loss: [dpo_norm, sft]\nloss_weights: [1, 0.2]\nrl_beta: 0.3\n");
    EXPECT_EQ(dpo.loss_type, (std::vector{PreferenceLoss::sigmoid_norm, PreferenceLoss::sft}));
    EXPECT_EQ(dpo.loss_weights, (std::vector{1.0, 0.2}));
    EXPECT_EQ(dpo.beta, 0.3);
    EXPECT_EQ(dpo.learning_rate, 1e-6);
    EXPECT_EQ(dpo.num_train_epochs, 1);
    EXPECT_TRUE(dpo.precompute_ref_log_probs);
    const Config simpo = read(minimal + "stage: dpo\nloss_type: simpo\nsimpo_gamma: 1.5\nmax_steps: 7\nlr: 1e-4\n");
    EXPECT_FALSE(simpo.precompute_ref_log_probs);
    EXPECT_EQ(simpo.num_train_epochs, 0);
    EXPECT_EQ(simpo.learning_rate, 1e-4);
    const Config rm = read(minimal + "stage: rm\nreward_loss: plackett_luce\ncenter_rewards_coefficient: 0.01\n");
    EXPECT_EQ(rm.learning_rate, 2e-5);
    EXPECT_EQ(rm.num_train_epochs, 1);
    const Config kto = read(minimal + "stage: kto\npref_beta: 0.2\nkto_chosen_weight: 1.5\n");
    EXPECT_EQ(kto.unpaired_loss, UnpairedLoss::kto);
    EXPECT_EQ(kto.beta, 0.2);
    EXPECT_EQ(kto.desirable_weight, 1.5);
    EXPECT_EQ(kto.undesirable_weight, 1);
    EXPECT_EQ(kto.learning_rate, 1e-6);
    EXPECT_EQ(kto.num_train_epochs, 1);
    EXPECT_EQ(kto.packing_length, kto.max_length);
    EXPECT_TRUE(kto.precompute_ref_log_probs);
    const Config apo = read(minimal +
                            "rl: kto\nloss_type: [apo_zero_unpaired]\nfinetuning_type: lora\n"
                            "precompute_ref_log_probs: false\n");
    EXPECT_EQ(apo.stage, Stage::kto);
    EXPECT_EQ(apo.unpaired_loss, UnpairedLoss::apo_zero_unpaired);
    EXPECT_EQ(apo.learning_rate, 5e-6);
    EXPECT_FALSE(read(minimal).unpaired_loss);
}

TEST(Config, SettlesAConfigFilledByCodeAsIfItWereRead) {
    Config built;
    built.stage = Stage::dpo;
    built.finetuning_type = Finetuning::lora;
    built.lora_rank = 4;
    built.max_length = 100;
    built.seed = 7;
    settle_defaults(built, {"lora_rank"}, "here");
    Config expected = read(minimal + "stage: dpo\nfinetuning_type: lora\nlora_rank: 4\nmax_length: 100\nseed: 7\n");
    expected.model_name_or_path = expected.tokenizer_name_or_path = expected.output_dir = expected.prepared_path = "";
    expected.datasets.clear();
    EXPECT_EQ(resolved_yaml(built), resolved_yaml(expected));

    Config given;
    given.data_seed = 3;
    settle_defaults(given, {"data_seed"}, "here");
    EXPECT_EQ(given.data_seed, 3);
    given.min_lr = 1e-6;
    expect_error(Exit::config, "here: lr_scheduler_type cosine takes no min_lr",
                 [&] { settle_defaults(given, {}, "here"); });
}

/// All keys that depend on the device.
std::string device_keys(const Config& c) {
    return fmt::format("bf16 {}, deterministic {}, head_chunk {}", static_cast<int>(c.bf16), c.deterministic,
                       c.head_chunk);
}

TEST(Config, SettlesKeysThatDependOnTheDevice) {
    const std::string open = "bf16 0, deterministic false, head_chunk 0";
    const std::string on_cpu = "bf16 2, deterministic true, head_chunk 256";
    const std::string on_gpu = "bf16 1, deterministic false, head_chunk 4096";
    EXPECT_EQ(device_keys(read(minimal)), open);
    EXPECT_EQ(device_keys(read(minimal + "device: cpu\n")), on_cpu);
    EXPECT_EQ(device_keys(read(minimal + "device: cuda\n")), on_gpu);
    EXPECT_EQ(device_keys(read(minimal + "device: cpu\nbf16: auto\nhead_chunk: 0\ndeterministic: false\n")), on_cpu);
    EXPECT_EQ(device_keys(read(minimal + "device: cuda\nbf16: true\nhead_chunk: 5\ndeterministic: true\n")),
              "bf16 1, deterministic true, head_chunk 5");

    for (const Device device : {Device::cpu, Device::cuda}) {
        const bool gpu = device == Device::cuda;
        Config c = read(minimal);
        settle_device(c, device);
        EXPECT_EQ(device_keys(c), gpu ? on_gpu : on_cpu);
        EXPECT_EQ(c.device, gpu ? DeviceChoice::cuda : DeviceChoice::cpu);
        EXPECT_EQ(resolved_yaml(read(resolved_yaml(c))), resolved_yaml(c));

        // The error is the same as for a config that names the device.
        c = read(minimal + (gpu ? "bf16: false\n" : "bf16: true\n"));
        expect_error(
            Exit::config,
            gpu ? "device: auto, which is cuda here: bf16: false needs" : "device: auto, which is cpu here: bf16: true",
            [&] { settle_device(c, device); });
        c = read(minimal + "optim_dtype: bfloat16\n");
        if (gpu)
            EXPECT_NO_THROW(settle_device(c, device));
        else
            expect_error(Exit::config, "device: auto, which is cpu here: optim_dtype bfloat16 needs a GPU",
                         [&] { settle_device(c, device); });
    }
}

TEST(Config, ReadsOtherSpellingsOfGradientCheckpointingAndOptimDtype) {
    const std::pair<const char*, Recompute> checkpointing[] = {{"none", Recompute::none},
                                                               {"selective", Recompute::selective},
                                                               {"block", Recompute::block},
                                                               {"true", Recompute::block},
                                                               {"false", Recompute::none}};
    for (const auto& [text, value] : checkpointing)
        for (const char* key : {"gradient_checkpointing: ", "enable_activation_checkpointing: "})
            EXPECT_EQ(read(minimal + key + text).gradient_checkpointing, value) << key << text;
    for (const auto& [text, value] :
         {std::pair{"float32", DType::f32}, {"bfloat16", DType::bf16}, {"bf16", DType::bf16}})
        EXPECT_EQ(read(minimal + "optim_dtype: " + text).optim_dtype, value) << text;
    const std::string yaml = resolved_yaml(read(minimal + "gradient_checkpointing: true\ndevice: cuda\n"));
    EXPECT_NE(yaml.find("\ngradient_checkpointing: block\n"), std::string::npos) << yaml;
    EXPECT_NE(yaml.find("\nbf16: true\n"), std::string::npos) << yaml;
}

// Together these two give every key a value other than its default.
const std::string everything_with_folder =
    "model_name_or_path: 'models/my model: #1'\ntokenizer_name_or_path: \"null\"\ndevice: cpu\nthreads: 3\n"
    "datasets:\n  - path: \"~\"\n    type: text\n    columns: {text: 'true', \"a b\": \"- x\"}\n  - {path: 12}\n"
    "eval_datasets: [{path: \"\\\"quoted\\\"\\n\\u00e9\"}]\nmax_length: 99\nexcess_length: truncate\n"
    "compute: fp8\nzero_stage: 1\ngrad_sync_dtype: bfloat16\nddp_timeout: 30\nparam_checksum_steps: "
    "7\nrecompute_check_steps: 9\n"
    "prepared_path: p\ndataset_num_proc: 2\nchat_template: llama3\ntrain_on_prompt: true\n"
    "chat_template_kwargs: {enable_thinking: false, n: 3, text: [a, 'true']}\nchat_template_date: 2024-07-26\n"
    "allow_spelled_out_markers: true\nspecial_tokens_in_text: token\ntrain_on_thinking: false\n"
    "train_on_tool_calls: false\n"
    "roles_to_train: [user, tool]\ntrain_on_eos: all\nmask_history: true\nhistory: as_rendered\nadd_bos: "
    "false\nadd_eos: false\n"
    "packing: false\npacking_length: 100\npacking_window: 7\nper_device_train_batch_size: 2\n"
    "per_device_eval_batch_size: 5\ngradient_accumulation_steps: 4\nnum_train_epochs: 0.3\nhead_chunk: 8\n"
    "learning_rate: 0.1234567890123456789\n"
    "lr_scheduler_type: wsd\nwarmup_steps: 7\nmin_lr: 1e-7\nwsd_decay_steps: 9\nwsd_decay_type: 1-sqrt\n"
    "adam_beta1: 0.8\nadam_beta2: 0.98\nadam_epsilon: 1e-300\nweight_decay: 0.1\nmax_grad_norm: 0\nloss_spike: "
    "skip\nloss_spike_z: 5\nloss_spike_window: 64\nseed: 1\n"
    "data_seed: 2\noutput_dir: 'a\\b'\noverwrite_output_dir: true\nlogging_steps: 1\nreport_to: [csv, wandb]\nproject: "
    "p\nrun_name: n\n"
    "eval_strategy: steps\neval_steps: 11\neval_on_start: true\neval_table_size: 2\neval_max_new_tokens: "
    "9\nsave_strategy: steps\nsave_steps: 13\n"
    "save_total_limit: 0\nexport_checkpoints: true\nasync_save: false\nfinetuning_type: lora\nlora_rank: "
    "4\nlora_alpha: 9\nlora_dropout: 0.1\n"
    "lora_target: q_proj\nuse_rslora: true\nmodules_to_save: lm_head\nadapter_name_or_path: a\nexport_merged: true\n"
    "base_quantization: nf4\n";
const std::string everything_with_shape =
    "model: {architecture: qwen3, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2,\n"
    "  num_attention_heads: 4, num_key_value_heads: 2, head_dim: 32, vocab_size: 300, max_position_embeddings: 4096,\n"
    "  rope_theta: 1e6, rms_norm_eps: 1e-5, tie_word_embeddings: true, sliding_window: 64, initializer_range: 0.1}\n"
    "datasets: [{path: a}]\nstage: pt\nval_size: 0.25\npacking_strategy: sequential\neval_packing: false\n"
    "share_prefixes: false\ndocument_mask: false\nmax_steps: 50\nlr_scheduler_type: wsd\nwarmup_ratio: "
    "0.2\nmin_lr_rate: 0.1\n"
    "wsd_decay_ratio: 0.3\ndevice: cuda\ndevice_index: 3\nbf16: true\noptim_dtype: bfloat16\noffload_optimizer: 0.5\n"
    "gradient_checkpointing: selective\noffload_activations: 5\noffload_weights: 3\nfit: auto\ngpu_memory: 24GiB\n"
    "host_memory: 1.5TB\noutput_dir: o\nresume_from_checkpoint: "
    "'runs/checkpoint-10'\n";

/// Their keys exclude each other.
const std::vector<std::string> everything_of_preferences = {
    "stage: dpo\nloss_type: [robust, sft]\nloss_weights: [1, 0.25]\nbeta: 0.3\nlabel_smoothing: 0.2\n"
    "ref_model_name_or_path: 'models/a: reference'\n",
    "stage: dpo\nloss_type: simpo\nsimpo_gamma: 1.25\nranking_pairs: best\nlr_scheduler_type: "
    "cosine_with_restarts\nlr_cycles: 3\n",
    "lr_scheduler_type: polynomial\nlr_power: 2\noptim: adamw_8bit\nneftune_noise_alpha: 5\nuse_dft_loss: true\n",
    "special_tokens: {pad_token: <|pad|>, eos_token: '<e, f>'}\nadd_special_tokens: ['b,', a]\nadd_tokens: c\n"
    "pad_vocab_to_multiple_of: 64\n",
    "finetuning_type: freeze\nfreeze_trainable_layers: -3\nfreeze_trainable_modules: [mlp]\n"
    "freeze_extra_modules: norm\n",
    "finetuning_type: freeze\nunfrozen_parameters: ['model.layers.2[0-9].mlp', ^lm_head]\n",
    "lr_scheduler_type: inverse_sqrt\nlr_timescale: 200\noptim: muon\nmuon_momentum: 0.9\n",
    "val_size: 5\nsave_strategy: best\nload_best_model_at_end: true\nmetric_for_best_model: perplexity\n"
    "greater_is_better: false\nearly_stopping_patience: 3\nearly_stopping_threshold: 0.01\n",
    "stage: grpo\nloss_type: dr_grpo\nmax_completion_length: 512\nimportance_sampling_level: sequence\nepsilon: 0.1\n"
    "epsilon_high: 0.28\ndelta: 1.5\nbeta: 0.04\nuse_bias_correction_kl: false\ntemperature: 0.7\nold_logps: start\n"
    "vllm_importance_sampling_mode: token_truncate\nvllm_importance_sampling_clip_max: 2\n"
    "vllm_importance_sampling_clip_min: 0.5\n",
    "stage: grpo\nloss_type: sapo\nsapo_temperature_pos: 0.9\nsapo_temperature_neg: 1.1\n"
    "vllm_importance_sampling_correction: false\n",
    "stage: grpo\nloss_type: cispo\n",
    "stage: kto\nloss_type: apo_zero_unpaired\ndesirable_weight: 1.5\nundesirable_weight: 0.5\n",
    "stage: grpo\nscale_rewards: batch\nreward_weights: [1, -0.5]\nreward_clip_range: [-2.5, 3]\n"
    "normalize_advantages: true\nmask_truncated_completions: true\n",
    "stage: distill\nbeta: 0.5\nkd_alpha: 0.75\nkd_ce_alpha: 0.25\n",
    "stage: grpo\nmulti_objective_aggregation: normalize_then_sum\n",
    "stage: rm\nreward_loss: plackett_luce\ncenter_rewards_coefficient: 0.01\n"
    "val_size: 5\nevals_per_epoch: 4\nsaves_per_epoch: 2\n",
};

/// "key: value" by key, for top-level keys and those of `model`.
std::map<std::string, std::string> values(const Config& config) {
    std::map<std::string, std::string> found;
    const std::string yaml = resolved_yaml(config);
    std::string key;
    for (size_t begin = 0, end; (end = yaml.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const std::string line = yaml.substr(begin, end - begin);
        if (line[0] != ' ') key = line.substr(0, line.find(':'));
        const bool in_model = line[0] == ' ' && key == "model";
        found[in_model ? line.substr(0, line.find(':')) : key] += line;
    }
    return found;
}

TEST(Config, DefaultsAreNotShown) {
    const LoadedConfig loaded = parse_config(
        "model_name_or_path: models/a\ndatasets:\n  - path: a.jsonl\n    max_samples: 5\nseed: 42\nmax_length: 100\n"
        "packing_length: 100\noutput_dir: runs/a\nlearning_rate: 1e-3\n",
        "test");
    EXPECT_EQ(changed_yaml(loaded.config, loaded.given),
              "model_name_or_path: models/a\n"
              "datasets: [{path: a.jsonl, max_samples: 5}]\n"
              "max_length: 100\n"
              "packing_length: 100\n"  // its default depends on max_length
              "learning_rate: 0.001\n"
              "output_dir: runs/a\n");
    EXPECT_EQ(changed_yaml(loaded.config, {}), "");
}

TEST(Config, DefaultsOfPolicies) {
    const Config dapo = read(minimal + "stage: grpo\n");
    EXPECT_EQ(dapo.policy_loss, PolicyLoss::dapo);
    EXPECT_EQ(dapo.importance_sampling_level, RatioLevel::token);
    EXPECT_EQ(dapo.beta, 0);
    EXPECT_EQ(dapo.learning_rate, 1e-6);
    EXPECT_EQ(dapo.num_train_epochs, 1);
    EXPECT_EQ(dapo.packing_length, dapo.max_length);
    EXPECT_FALSE(dapo.precompute_ref_log_probs);
    EXPECT_EQ(read(minimal + "stage: grpo\nfinetuning_type: lora\n").learning_rate, 5e-6);
    EXPECT_EQ(read(minimal + "stage: grpo\nepsilon: 0.1\n").epsilon_high, 0.1);
    EXPECT_EQ(read(minimal + "stage: grpo\nloss_type: cispo\n").epsilon_high, 5);
    EXPECT_EQ(read(minimal + "stage: grpo\nloss_type: [luspo]\n").importance_sampling_level, RatioLevel::sequence);
    EXPECT_EQ(read(minimal + "stage: grpo\nloss_type: rloo\n").importance_sampling_level, RatioLevel::sequence_sum);
    EXPECT_TRUE(read(minimal + "stage: grpo\nbeta: 0.1\n").precompute_ref_log_probs);
    EXPECT_EQ(read(minimal + "stage: dpo\n").beta, 0.1);
    EXPECT_FALSE(read(minimal + "stage: dpo\n").policy_loss);
    const LoadedConfig idle =
        parse_config(minimal + "stage: grpo\nloss_type: cispo\nepsilon: 0.1\nmax_completion_length: 99\n", "c.yaml");
    EXPECT_EQ(idle.config.epsilon, 0.2);
    EXPECT_EQ(idle.config.max_completion_length, 0);
    EXPECT_EQ(idle.notices, (std::vector<std::string>{
                                "c.yaml:6:10: epsilon has no effect with loss_type cispo",
                                "c.yaml:7:24: max_completion_length has no effect with loss_type cispo; max_length and "
                                "excess_length decide what is cut"}));
}

TEST(Config, ResolvedYamlGivesTheSameConfig) {
    std::vector<std::string> all = {minimal, everything_with_folder, everything_with_shape};
    for (const std::string& preferences : everything_of_preferences) all.push_back(minimal + preferences);
    for (const std::string& yaml : all) {
        const Config config = read(yaml);
        const LoadedConfig again = parse_config(resolved_yaml(config), "resolved");
        EXPECT_EQ(resolved_yaml(again.config), resolved_yaml(config));
        EXPECT_TRUE(again.notices.empty()) << fmt::format("{}", fmt::join(again.notices, "\n"));
    }
    // So does the part that `train` shows.
    for (const std::string& yaml : all) {
        const LoadedConfig loaded = parse_config(yaml, "test");
        const std::string shown = changed_yaml(loaded.config, loaded.given);
        EXPECT_EQ(resolved_yaml(parse_config(shown, "shown").config), resolved_yaml(loaded.config)) << shown;
    }
    const Config config = read(resolved_yaml(read(everything_with_folder)));
    EXPECT_EQ(config.model_name_or_path, "models/my model: #1");
    EXPECT_EQ(config.tokenizer_name_or_path, "null");
    EXPECT_EQ(config.datasets[0].path, "~");
    EXPECT_EQ(config.datasets[0].columns, (std::map<std::string, std::string>{{"text", "true"}, {"a b", "- x"}}));
    EXPECT_EQ(config.eval_datasets[0].path, "\"quoted\"\n\u00e9");
    EXPECT_EQ(config.output_dir, "a\\b");
    EXPECT_EQ(config.learning_rate, 0.1234567890123456789);
}

TEST(Config, TheRoundTripTouchesEveryKey) {
    Config shape;
    shape.model.emplace();
    const auto defaults = values(Config{}), shape_defaults = values(shape);
    const auto folder = values(read(everything_with_folder)), shaped = values(read(everything_with_shape));
    std::vector<std::map<std::string, std::string>> all = {folder, shaped};
    for (const std::string& preferences : everything_of_preferences) all.push_back(values(read(minimal + preferences)));
    for (const auto& [key, line] : folder) {
        const auto moved = [&, &key = key](const auto& of) { return of.at(key) != defaults.at(key); };
        EXPECT_TRUE(std::any_of(all.begin(), all.end(), moved)) << key;
    }
    for (const auto& [key, line] : shaped) {
        if (key[0] == ' ') {
            EXPECT_NE(line, shape_defaults.at(key));
        }
    }
}

TEST(Config, ChangesAreThoseThatAffectTheWeights) {
    const Config config = read(minimal);
    for (const char* how :
         {"output_dir=x", "threads=2", "resume_from_checkpoint=auto", "logging_steps=3", "device_index=1",
          "gradient_checkpointing=block", "fit=auto", "gpu_memory=8GB", "host_memory=8GB", "offload_activations=true",
          "offload_weights=true", "offload_optimizer=true", "save_strategy=no", "prepared_path=x", "zero_stage=1",
          "ddp_timeout=5", "param_checksum_steps=0", "recompute_check_steps=3"})
        EXPECT_TRUE(config_changes(config, read(minimal, {how})).empty()) << how;
    for (const char* what :
         {"learning_rate=1e-3", "datasets[0].path=x", "max_steps=3", "data_seed=3", "packing=false", "optim_dtype=bf16",
          "optim=adamw_8bit", "deterministic=true", "grad_sync_dtype=bf16", "compute=fp8"})
        EXPECT_FALSE(config_changes(config, read(minimal, {what})).empty()) << what;
    EXPECT_EQ(config_changes(config, read(minimal, {"learning_rate=1e-3", "seed=1"})),
              (std::vector<std::string>{"learning_rate: 2e-05, now 0.001", "seed: 42, now 1", "data_seed: 42, now 1"}));
    // The device itself does not count; the keys that follow from it do.
    EXPECT_EQ(config_changes(read(minimal, {"device=cpu"}), read(minimal, {"device=cuda"})),
              (std::vector<std::string>{"bf16: false, now true", "deterministic: true, now false",
                                        "head_chunk: 256, now 4096"}));
}

TEST(Config, ConvertsToSettingsOfOtherParts) {
    const Config c = read(everything_with_folder);
    const EncodeOptions encode = encode_options(c, 300);
    EXPECT_EQ(encode.sample_length, 0);
    const Config dpo = read(minimal + "stage: dpo\nmax_length: 100\n"),
                 rm = read(minimal + "stage: rm\npacking_length: 5000\n");
    EXPECT_EQ(dpo.packing_length, 200);
    EXPECT_EQ(encode_options(dpo, 300).sample_length, 200);
    EXPECT_EQ(encode_options(dpo, 300).ranked_pairs, RankedPairs::all);
    EXPECT_EQ(encode_options(read(minimal + "stage: dpo\nranking_pairs: best\n"), 300).ranked_pairs, RankedPairs::best);
    EXPECT_EQ(encode_options(rm, 300).sample_length, 5000);
    EXPECT_EQ(c.chat_template, "llama3");
    EXPECT_EQ(c.chat_template_kwargs, (Json{{"enable_thinking", false}, {"n", 3}, {"text", {"a", "true"}}}));
    EXPECT_EQ(chat_template_clock(c)->day, 26);
    EXPECT_EQ(encode.max_length, 99);
    EXPECT_EQ(encode.roles_to_train, (std::set<std::string>{"user", "tool"}));
    EXPECT_EQ(encode.vocab_size, 300);

    const Config s = read(everything_with_shape);
    EXPECT_EQ(train_packing(s).strategy, PackStrategy::sequential);
    EXPECT_TRUE(train_packing(s).shuffle);
    EXPECT_EQ(eval_packing(s).strategy, PackStrategy::none);
    EXPECT_FALSE(eval_packing(s).shuffle);

    // transformers rounds shares of steps up.
    const LrSchedule shares = lr_schedule(s, 52), counts = lr_schedule(c, 52);
    EXPECT_EQ(shares.warmup_steps, 11);
    EXPECT_EQ(shares.decay_steps, 16);
    EXPECT_EQ(shares.min_lr_rate, 0.1);
    EXPECT_EQ(counts.warmup_steps, 7);
    EXPECT_EQ(counts.decay_steps, 9);
    EXPECT_DOUBLE_EQ(counts.min_lr_rate * counts.peak, 1e-7);
    EXPECT_EQ(learning_rate(counts, 51 - 9), c.learning_rate);
}

TEST(Config, TheReferencePageIsUpToDate) {
    const std::string path = project_file("docs/config.md");
    if (std::getenv("COLONNADE_WRITE_DOCS")) write_file_atomically(path, config_reference());
    EXPECT_EQ(slurp(path), config_reference()) << "run this test with COLONNADE_WRITE_DOCS=1 to write the page";
}

TEST(Config, HelpNamesEveryKey) {
    const std::string help = config_help(), page = config_reference();
    for (const auto& [key, line] : values(read(minimal))) {
        EXPECT_NE(help.find("\n  " + key), std::string::npos) << key;
        EXPECT_NE(page.find("\n| `" + key + "` |"), std::string::npos) << key;
    }
    for (const char* nested : {"model.hidden_size", "datasets[].columns"})
        EXPECT_NE(page.find("\n| `" + std::string(nested) + "` |"), std::string::npos) << nested;
}

}  // namespace
}  // namespace colonnade
