#include "train/config/ported_keys.h"

#include "train/config/porter.h"

namespace colonnade {
namespace {

/// May change the entry itself, if its key is ours; a null then stands for "not given".
using Port = void (*)(ConfigNode& entry, Porter& porter);

/// A row of the table: keys, and what becomes of them.
struct Rule {
    std::vector<std::string> names;  ///< an asterisk at the end stands for any text
    enum class Kind {
        idle,     ///< never changes a run here
        refused,  ///< an error, unless it is off
        ported    ///< rewritten by `port`
    } kind;
    std::string text = {};  ///< why it is idle; the way out; what it becomes
    Port port = nullptr;
};

constexpr auto idle = Rule::Kind::idle, refused = Rule::Kind::refused, ported = Rule::Kind::ported;

// --- Batches, steps, schedule ----------------------------------------------------------------------------------------

void port_max_steps(ConfigNode& entry, Porter&) {
    if (entry.text == "-1") entry = {.key = entry.key, .key_where = entry.key_where};
}

void port_warmup_steps(ConfigNode& entry, Porter& porter) {
    double share = 0;
    if (ValueFormat<double>::read(entry, {.low = 0, .high = 1, .low_excluded = true, .high_excluded = true}, share)) {
        porter.set("warmup_ratio", entry.text, entry);
        entry.kind = ConfigNode::Kind::null;
    }
}

void port_schedule_arguments(ConfigNode& entry, Porter& porter) {
    static const std::map<std::string, std::string> names = {{"min_lr", "min_lr"},
                                                             {"lr_end", "min_lr"},
                                                             {"power", "lr_power"},
                                                             {"num_cycles", "lr_cycles"},
                                                             {"timescale", "lr_timescale"},
                                                             {"min_lr_rate", "min_lr_rate"},
                                                             {"num_decay_steps", "wsd_decay_steps"},
                                                             {"decay_type", "wsd_decay_type"},
                                                             {"min_lr_ratio", "min_lr_rate"},
                                                             {"num_warmup_steps", "warmup_steps"}};
    for (ConfigNode argument : entry.children) {
        const auto name = names.find(argument.key);
        if (argument.key == "num_cycles" && argument.text == "0.5")
            porter.idle(argument, "the default");
        else if (name != names.end())
            porter.set(name->second, argument.text, argument);
        else if (is_off(argument))
            porter.idle(argument, "the default");
        else
            porter.refuse(argument,
                          "schedules here take min_lr, min_lr_rate, lr_end, power, num_cycles, timescale, "
                          "num_decay_steps and decay_type");
    }
}

void port_cosine_floor(ConfigNode& entry, Porter& porter) {
    if (is_off(entry)) return porter.idle(entry, "off");
    porter.replace("lr_scheduler_type", Porter::scalar("cosine_with_min_lr", entry), entry);
    porter.set("min_lr_rate", entry.text, entry);
}

/// evals_per_epoch and its like count from the first step; ours are keys of their own.
void port_share_of_run(ConfigNode& entry, Porter& porter) {
    double share = 0;
    if (ValueFormat<double>::read(entry, {.low = 0, .high = 1, .low_excluded = true, .high_excluded = true}, share))
        porter.refuse(
            entry, fmt::format("a share of the run; give a number of steps, or {}s_per_epoch", entry.key.substr(0, 4)));
}

/// transformers halves the batch of a device until it fits, as fit does; a step keeps its packs here.
void port_find_batch_size(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("fit", "auto", entry);
}

// --- Data and labels -------------------------------------------------------------------------------------------------

void port_datasets(ConfigNode& entry, Porter& porter) {
    for (ConfigNode& item : entry.children)
        if (item.kind == ConfigNode::Kind::map) port_dataset(item, porter);
}

void port_dataset_names(ConfigNode& entry, Porter& porter) {
    const ConfigNode* const folder = porter.find("dataset_dir");
    port_named_datasets(entry, folder ? folder->text : "data", entry.key == "dataset" ? "datasets" : "eval_datasets",
                        porter);
}

void port_dataset_name(ConfigNode& entry, Porter& porter) {
    const ConfigNode *const split = porter.find("dataset_train_split"), *const field =
                                                                            porter.find("dataset_text_field");
    std::vector<std::pair<std::string, ConfigNode>> keys = {{"path", Porter::scalar(entry.text, entry)}};
    if (split) keys.emplace_back("split", Porter::scalar(split->text, *split));
    if (field && field->text != "text")
        keys.emplace_back("columns", Porter::map({{"text", Porter::scalar(field->text, *field)}}, *field));
    porter.set("datasets", Porter::list({Porter::map(std::move(keys), entry)}, entry), entry);
}

/// Keys that say more of `dataset` or `dataset_name`, which read them.
void port_part_of_dataset(ConfigNode& entry, Porter& porter) {
    if (porter.find("dataset") || porter.find("dataset_name")) return porter.idle(entry, "part of the data set");
    porter.refuse(entry, "without dataset or dataset_name; datasets[] has max_samples, split and columns");
}

void port_packing(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "samples of a row never see each other") : porter.set("packing", "true", entry);
}

void port_template(ConfigNode& entry, Porter& porter) {
    // LLaMA-Factory's names for the templates that the models bring.
    static const std::set<std::string> own = {
        "default",  "qwen",          "qwen3",     "qwen3_nothink",
        "phi",      "phi4",          "gemma2",    "gemma3",
        "deepseek", "deepseek3",     "smollm",    "smollm2",
        "yi",       "mistral_small", "ministral", "tokenizer_default_fallback_chatml"};
    if (entry.key == "template")
        return porter.set("chat_template", own.contains(entry.text) ? "auto" : entry.text, entry);
    if (entry.text == "jinja") entry.kind = ConfigNode::Kind::null;  // chat_template_jinja says which
    if (own.contains(entry.text)) entry.text = "auto";
}

void port_enable_thinking(ConfigNode& entry, Porter& porter) {
    porter.set("chat_template_kwargs", Porter::map({{"enable_thinking", Porter::scalar(entry.text, entry)}}, entry),
               entry);
}

void port_completion_only(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.set("train_on_prompt", "true", entry) : porter.idle(entry, "the default");
}

void port_truncation_mode(ConfigNode& entry, Porter& porter) {
    if (entry.text == "keep_end") return porter.refuse(entry, "excess_length: truncate keeps the start");
    porter.idle(entry, "the default");
}

void port_loss_type(ConfigNode& entry, Porter& porter) {
    if (entry.text == "bnpo")
        return porter.refuse(
            entry,
            "it divides by the tokens of a micro-batch, so that it depends on how a step is split; use "
            "dapo, which divides by those of the whole step");
    if (entry.text == "nll") entry.kind = ConfigNode::Kind::null;  // TRL's name for the loss of stage sft
}

/// Of stage grpo this is a key of ours.
void port_completion_length(ConfigNode& entry, Porter& porter) {
    const ConfigNode* const stage = porter.find("stage");
    if ((stage && stage->text == "grpo") || is_off(entry)) return;
    porter.idle(entry, "max_length and excess_length decide what is cut");
    entry.kind = ConfigNode::Kind::null;
}

void port_sft_term(ConfigNode& entry, Porter& porter) {
    if (is_off(entry)) return porter.idle(entry, "off");
    const ConfigNode* const loss = porter.find("loss_type");
    const auto item = [&](const std::string& text) { return Porter::scalar(text, entry); };
    porter.replace("loss_type", Porter::list({item(loss ? loss->text : "sigmoid"), item("sft")}, entry), entry);
    porter.set("loss_weights", Porter::list({item("1"), item(entry.text)}, entry), entry);
}

// --- Output ----------------------------------------------------------------------------------------------------------

/// Axolotl logs to W&B if there is a project, LLaMA-Factory and TRL if report_to says so.
void port_wandb(ConfigNode& entry, Porter& porter) {
    if (is_off(entry)) return;
    if (entry.key == "project" || porter.find("report_to")) return;
    std::vector<ConfigNode> reports;
    for (const char* report : {"jsonl", "tensorboard", "wandb"}) reports.push_back(Porter::scalar(report, entry));
    porter.set("report_to", Porter::list(std::move(reports), entry), entry);
}

void port_generate_during_eval(ConfigNode& entry, Porter& porter) {
    is_off(entry) ? porter.idle(entry, "off") : porter.set("eval_table_size", "8", entry);
}

void port_plugins(ConfigNode& entry, Porter& porter) {
    for (const ConfigNode& plugin : entry.children) {
        if (plugin.text.find("KDPlugin") != std::string::npos) {
            porter.set("stage", "distill", plugin);
            continue;
        }
        if (plugin.text.find("liger") == std::string::npos &&
            plugin.text.find("cut_cross_entropy") == std::string::npos)
            return porter.refuse(entry, "remove it, or what it adds");
    }
    porter.idle(entry, "faster kernels");
}

/// Keys of which only the default exists here.
void port_default(ConfigNode& entry, Porter& porter) {
    static const std::map<std::string, std::string> defaults = {
        {"logging_strategy", "steps"},       {"mix_strategy", "concat"},
        {"shuffle_dataset", "true"},         {"init_lora_weights", "true"},
        {"peft_init_lora_weights", "true"},  {"f_divergence_type", "reverse_kl"},
        {"shuffle_merged_datasets", "true"}, {"num_iterations", "1"},
        {"top_entropy_quantile", "1.0"}};
    const std::string& value = defaults.at(entry.key);
    if (entry.text == value || (value == "true" && is_true(entry))) return porter.idle(entry, "the default");
    porter.refuse(entry, fmt::format("there is only {}", value));
}

void port_report_to(ConfigNode& entry, Porter& porter) {
    static const std::set<std::string> foreign = {"all", "comet_ml", "swanlab", "neptune", "clearml"};
    const std::vector<ConfigNode> items =
        entry.kind == ConfigNode::Kind::sequence ? entry.children : std::vector<ConfigNode>{entry};
    std::string others;
    std::set<std::string> kept;
    for (const ConfigNode& item : items) {
        if (foreign.contains(item.text))
            others += (others.empty() ? "" : ", ") + item.text;
        else
            kept.insert(item.text);
    }
    if (others.empty()) return;
    for (const char* report : {"jsonl", "tensorboard"}) kept.insert(report);
    porter.note(entry, fmt::format("{}: metrics.jsonl and TensorBoard files are written instead", others));
    entry.kind = ConfigNode::Kind::sequence;
    entry.children.clear();
    for (const std::string& report : kept) entry.children.push_back(Porter::scalar(report, entry));
}

const std::vector<Rule>& rules() {
    static const std::vector<Rule> table = {
        // Rewritten.
        {{"rl"}, ported, "stage: dpo, kto or grpo, and loss_type if it names another loss", port_rl},
        {{"reward_model"}, ported, "stage: rm", port_reward_model},
        {{"kd_trainer"}, ported, "stage: distill", port_kd_trainer},
        {{"kd_temperature"}, ported, "an error unless it is 1", port_kd_temperature},
        {{"kd_normalize_topk"},
         refused,
         "what the teacher gives to tokens that are not in a list is one bucket: nothing is normalised"},
        {{"kd_online_*"}, refused, "the teacher's log-probabilities are data: rows of stage distill"},
        {{"use_peft"}, ported, "finetuning_type: lora or full", port_use_peft},
        {{"lora_target_linear"}, ported, "lora_target: all", port_lora_target_linear},
        {{"lr_scheduler_kwargs"},
         ported,
         "min_lr, min_lr_rate, lr_power, lr_cycles, lr_timescale, wsd_decay_steps, wsd_decay_type",
         port_schedule_arguments},
        {{"cosine_min_lr_ratio"}, ported, "lr_scheduler_type: cosine_with_min_lr with min_lr_rate", port_cosine_floor},
        {{"dataset", "eval_dataset"},
         ported,
         "datasets, eval_datasets: files, or entries of dataset_dir/dataset_info.json",
         port_dataset_names},
        {{"dataset_name"}, ported, "datasets, with dataset_train_split and dataset_text_field", port_dataset_name},
        {{"neat_packing"}, ported, "packing: true", port_packing},
        {{"template"},
         ported,
         "chat_template; names of LLaMA-Factory for a model's own template become auto",
         port_template},
        {{"enable_thinking"}, ported, "chat_template_kwargs: {enable_thinking: ...}", port_enable_thinking},
        {{"completion_only_loss", "assistant_only_loss"},
         ported,
         "train_on_prompt: true if it is false",
         port_completion_only},
        {{"truncation_mode"}, ported, "keep_start is the default", port_truncation_mode},
        {{"rpo_alpha", "pref_ftx"}, ported, "loss_type with sft, and loss_weights", port_sft_term},
        {{"model_revision", "revision_of_model"}, ported, "model_name_or_path: org/name@revision", port_model_revision},
        // Keys of ours with values of others.
        {{"finetuning_type", "adapter"}, ported, "", port_adapter},
        {{"max_steps"}, ported, "", port_max_steps},
        {{"warmup_steps"}, ported, "", port_warmup_steps},
        {{"optim", "optimizer"}, ported, "", port_optimizer},
        {{"eval_steps", "save_steps"}, ported, "", port_share_of_run},
        {{"chat_template"}, ported, "", port_template},
        {{"loss_type"}, ported, "", port_loss_type},
        {{"report_to"}, ported, "", port_report_to},
        {{"use_wandb"}, ported, "report_to: [jsonl, tensorboard, wandb], as does `wandb_project`", port_wandb},
        {{"project", "wandb_project"}, ported, "", port_wandb},
        {{"gradient_checkpointing"}, ported, "", port_checkpointing},
        {{"activation_offloading"}, ported, "", port_offloading},
        {{"datasets", "eval_datasets", "test_datasets"}, ported, "", port_datasets},
        // Without effect here.
        {{"dataset_train_split", "dataset_text_field", "max_samples"},
         ported,
         "part of `dataset` or `dataset_name`",
         port_part_of_dataset},
        {{"dataset_dir"}, idle, "the folder of dataset"},
        {{"dataset_test_split"}, idle, "data to evaluate on goes into eval_datasets"},
        {{"flash_attention", "flash_attn", "sdp_attention", "xformers_attention", "flex_attention", "eager_attention",
          "attn_implementation"},
         idle,
         "attention is FlashMask"},
        {{"model_type", "tokenizer_type", "tokenizer_use_fast", "use_fast_tokenizer", "is_llama_derived_model",
          "is_mistral_derived_model", "is_qwen_derived_model", "trust_remote_code", "low_cpu_mem_usage", "device_map",
          "ddp*", "local_rank", "ray_*"},
         idle},
        {{"torch_dtype", "dtype", "tf32", "fp16_full_eval", "bf16_full_eval", "upcast_*", "bfloat16"},
         idle,
         "matrix products are bf16 on a GPU, fp32 on the CPU"},
        {{"use_unsloth_gc"},
         ported,
         "gradient_checkpointing: block with offload_activations: true",
         port_unsloth_checkpointing},
        {{"gradient_checkpointing_kwargs"},
         ported,
         "offload: true becomes offload_activations: true; no effect otherwise",
         port_checkpointing_arguments},
        {{"use_cache", "use_reentrant_gc", "torch_compile*", "use_liger_kernel", "enable_liger_kernel", "liger_*",
          "cut_cross_entropy", "use_unsloth*", "unsloth_*", "use_kernels", "lora_mlp_kernel", "lora_qkv_kernel",
          "lora_o_kernel", "lora_on_cpu", "lora_task_type"},
         idle},
        {{"deepspeed", "fsdp*", "accelerator_config", "use_cpu"},
         idle,
         "see zero_stage, gradient_checkpointing and device"},
        {{"dataloader_*", "remove_unused_columns", "overwrite_cache", "preprocessing_batch_size", "pad_to_sequence_len",
          "pad_to_multiple_of", "padding_free", "group_by_length", "pad_token", "dataset_exact_deduplication"},
         idle,
         "packing leaves no padding; prepare reports lengths"},
        {{"wandb_*", "mlflow_*", "use_mlflow", "comet_*", "use_comet", "swanlab_*", "use_swanlab", "trackio_*"},
         idle,
         "see report_to, project and run_name"},
        {{"hub_*", "push_to_hub*", "hf_use_auth_token"}, idle, "nothing is uploaded: use hf upload with output_dir"},
        {{"plot_loss",
          "logging_dir",
          "logging_first_step",
          "logging_nan_inf_filter",
          "log_level*",
          "disable_tqdm",
          "include_num_input_tokens_seen",
          "include_tokens_per_second",
          "skip_memory_metrics",
          "do_train",
          "do_eval",
          "save_safetensors",
          "use_tensorboard",
          "no_remove_unused_columns",
          "disable_dropout",
          "save_only_model",
          "save_first_step",
          "average_tokens_across_devices",
          "strict",
          "debug",
          "eval_accumulation_steps",
          "prediction_loss_only",
          "compute_accuracy"},
         idle},
        // An error unless off.
        {{"load_in_8bit", "gptq"}, refused, "use base_quantization: fp8 or nf4"},
        {{"load_in_4bit"}, ported, "base_quantization", port_4bit},
        {{"fp8"}, ported, "compute: fp8", port_fp8},
        {{"fp8_backend", "fp8_enable_fsdp_float8_all_gather"}, idle, "compute: fp8 has one way to do it"},
        {{"quantization_bit"}, ported, "base_quantization", port_quantization_bit},
        {{"quantization_method", "quantization_type", "bnb_4bit_quant_type"},
         ported,
         "an error unless it is bitsandbytes' nf4",
         port_quantization_kind},
        {{"double_quantization", "bnb_*", "use_bnb_nested_quant"}, idle, "scales are stored in 8 bits, too"},
        {{"fp16", "pure_bf16"}, refused, "GPUs compute in bf16 with fp32 master weights: bf16: auto"},
        {{"use_dora", "peft_use_dora", "loraplus_lr_ratio", "loraplus_lr_embedding", "pissa_init", "lora_bias",
          "lora_layers_to_transform", "peft_layers_to_transform", "relora_steps", "use_galore", "use_badam",
          "use_apollo", "lisa_step_interval"},
         refused,
         "adapters here are LoRA and rsLoRA"},
        {{"unfrozen_parameters"}, ported, "", port_unfrozen},
        {{"noisy_embedding_alpha"}, ported, "neftune_noise_alpha", port_noise},
        {{"label_smoothing_factor", "embedding_learning_rate", "embedding_lr", "lr_groups", "freeze_*", "optim_args",
          "optim_target_modules", "shift_attn", "mixture_of_depths", "rope_scaling", "use_llama_pro",
          "cosine_constant_lr_ratio", "sequence_parallel_degree", "context_parallel_size", "tensor_parallel_size"},
         refused,
         "it would change what is learned; remove it"},
        {{"use_muon"}, ported, "optim: muon", port_use_muon},
        {{"special_tokens"}, ported, "", port_special_tokens},
        {{"eos_token"}, ported, "special_tokens: {eos_token: ...}", port_eos_token},
        {{"resize_token_embeddings_to_32x"}, ported, "pad_vocab_to_multiple_of: 32", port_multiple_of_32},
        {{"resize_vocab", "mean_resizing", "shrink_embeddings"},
         idle,
         "the embedding grows if tokens are added, by rows that are the mean of the others"},
        {{"added_tokens_overrides"}, refused, "give new tokens by add_special_tokens or add_tokens"},
        {{"streaming", "buffer_size", "interleave_probs", "disable_shuffling", "curriculum_sampling"},
         refused,
         "all data is tokenised once and shuffled; datasets[].weight weighs it"},
        {{"generate_during_eval"}, ported, "eval_table_size: 8", port_generate_during_eval},
        {{"predict_with_generate", "do_predict", "do_causal_lm_eval", "do_bench_eval"},
         refused,
         "evaluation computes the loss; eval_table_size shows answers"},
        {{"reference_free", "sync_ref_model", "use_weighting", "dpo_use_weighting", "ld_alpha", "discopop_tau", "kto_*",
          "ppo_*", "trl"},
         refused,
         "see loss_type for the losses that exist"},
        {{"max_completion_length"}, ported, "", port_completion_length},
        {{"num_generations", "num_generations_eval", "generation_batch_size", "steps_per_generation",
          "generation_kwargs", "top_p", "top_k", "min_p", "repetition_penalty", "cache_implementation",
          "log_completions", "num_completions_to_print", "log_unique_prompts", "ds3_gather_for_generation"},
         idle,
         "nothing is sampled in training: the rows of stage grpo hold the answers"},
        {{"use_vllm", "vllm*", "use_transformers_paged", "use_transformers_continuous_batching", "reward_funcs",
          "reward_model_name_or_path", "max_tool_calling_iterations"},
         refused,
         "nothing is sampled or scored in training: draw answers with colonnade generate or another sampler, score "
         "them, "
         "and give them as rows with stage: grpo"},
        {{"off_policy_mask_threshold", "entropy_coef*", "use_adaptive_entropy", "entropy_target"},
         refused,
         "it would change what is learned; remove it"},
        {{"max_prompt_length", "max_target_length", "precompute_ref_batch_size"},
         idle,
         "max_length and excess_length decide what is cut"},
        {{"plugins"}, ported, "no effect for faster kernels; other plugins are refused", port_plugins},
        {{"logging_strategy", "mix_strategy", "shuffle_dataset", "shuffle_merged_datasets", "init_lora_weights",
          "peft_init_lora_weights", "f_divergence_type", "num_iterations", "top_entropy_quantile"},
         ported,
         "an error unless it is the default",
         port_default},
        {{"hub_strategy"}, idle},
        {{"auto_find_batch_size"}, ported, "fit: auto, which keeps the packs of a step", port_find_batch_size},
        {{"loss_watchdog_threshold", "loss_watchdog_patience"}, refused, "loss_spike: stop ends a run at a spike"},
        {{"global_batch_size"}, refused, "give per_device_train_batch_size and gradient_accumulation_steps"},
    };
    return table;
}

bool matches(const std::string& pattern, const std::string& key) {
    return pattern.ends_with('*') ? key.starts_with(pattern.substr(0, pattern.size() - 1)) : key == pattern;
}

const Rule* find_rule(const std::string& key) {
    for (const Rule& rule : rules())
        for (const std::string& name : rule.names)
            if (matches(name, key)) return &rule;
    return nullptr;
}

}  // namespace

void port_config(ConfigNode& root, const std::string& name, Reading& reading) {
    Porter porter(root, reading);
    std::set<size_t> done;
    const size_t given = root.children.size();  // what rules add comes behind, and needs no second look
    for (size_t i = 0; i < given; ++i) {
        ConfigNode entry = root.children[i];  // a copy: rules may move the entries
        const bool ours = is_config_key(entry.key);
        const Rule* rule = find_rule(entry.key);
        if (ours && rule && rule->kind != ported) rule = nullptr;  // a pattern such as ddp*
        if (entry.kind == ConfigNode::Kind::null) {
            if (!ours) porter.idle(entry, "empty");
        } else if (!rule) {
            if (ours || !is_off(entry) || !nearest_key(entry.key).empty()) continue;
            porter.idle(entry, "unknown, and off");
        } else if (rule->kind == ported) {
            rule->port(entry, porter);
            if (reading.unreadable.contains(canonical_key(entry.key))) entry.kind = ConfigNode::Kind::null;
        } else if (rule->kind == refused && !is_off(entry)) {
            porter.refuse(entry, rule->text);
        } else {
            porter.idle(entry, rule->kind == refused ? "off" : rule->text);
        }
        if (!ours || entry.kind == ConfigNode::Kind::null) done.insert(i);
        root.children[i] = std::move(entry);
    }
    size_t index = 0;
    std::erase_if(root.children, [&](const ConfigNode&) { return done.contains(index++); });
    if (const std::string keys = porter.idle_keys(); !keys.empty())
        reading.notices.push_back(fmt::format("{}: without effect here: {}", name, keys));
}

std::vector<PortedKey> ported_keys() {
    std::vector<PortedKey> keys;
    for (const Rule& rule : rules()) {
        if (rule.kind == ported && rule.text.empty()) continue;
        std::string names;
        for (const std::string& each : rule.names) names += fmt::format("{}`{}`", names.empty() ? "" : ", ", each);
        keys.push_back({names, rule.kind == ported    ? rule.text
                               : rule.kind == refused ? "an error unless it is off: " + rule.text
                               : rule.text.empty()    ? "no effect"
                                                      : "no effect: " + rule.text});
    }
    return keys;
}

}  // namespace colonnade
