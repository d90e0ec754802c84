#include <span>

#include "engine/io/home_path.h"
#include "train/config/distillation_keys.h"
#include "train/config/memory_keys.h"
#include "train/config/packing_keys.h"
#include "train/config/policy_keys.h"
#include "train/config/preference_keys.h"
#include "train/config/reward_keys.h"
#include "train/config/rules.h"

namespace colonnade {
namespace {

void settle_shape(ModelShape& m, const Config& c, Rules& rules) {
    const std::pair<const char*, int64_t> required[] = {{"model.hidden_size", m.hidden_size},
                                                        {"model.intermediate_size", m.intermediate_size},
                                                        {"model.num_hidden_layers", m.num_hidden_layers},
                                                        {"model.num_attention_heads", m.num_attention_heads}};
    for (const auto& [key, value] : required) rules.expect(value > 0, {key, "model"}, "{} is missing", key);
    const int64_t heads = m.num_attention_heads;
    if (!rules.given("model.num_key_value_heads")) m.num_key_value_heads = heads;
    if (m.hidden_size < 1 || heads < 1 || m.num_key_value_heads < 1) return;

    rules.expect(heads % m.num_key_value_heads == 0, {"model.num_key_value_heads", "model.num_attention_heads"},
                 "model.num_attention_heads {} is not a multiple of num_key_value_heads {}", heads,
                 m.num_key_value_heads);
    const bool derived = !rules.given("model.head_dim"), divides = m.hidden_size % heads == 0;
    if (derived) m.head_dim = m.hidden_size / heads;
    rules.expect(!derived || divides, {"model.num_attention_heads"},
                 "model.hidden_size {} is not a multiple of num_attention_heads {}: give model.head_dim", m.hidden_size,
                 heads);
    rules.expect((derived && !divides) || (m.head_dim % 2 == 0 && m.head_dim >= 2 && m.head_dim <= 256),
                 {"model.head_dim", "model.hidden_size", "model.num_attention_heads"},
                 "model.head_dim {}: expected an even number from 2 to 256", m.head_dim);
    rules.expect(m.sliding_window == 0 || family_of(m.architecture).windows != WindowRule::none,
                 {"model.sliding_window", "model.architecture"}, "model.sliding_window: {} has none",
                 spell(m.architecture));
    rules.expect(c.max_length <= m.max_position_embeddings, {"max_length", "model.max_position_embeddings"},
                 "max_length {} is longer than model.max_position_embeddings {}", c.max_length,
                 m.max_position_embeddings);
}

void settle_model(Config& c, Rules& rules) {
    for (std::string* path : c.names()) *path = expand_home(*path);
    for (std::string* path : {&c.output_dir, &c.prepared_path, &c.resume_from_checkpoint}) *path = expand_home(*path);
    const bool folder = !c.model_name_or_path.empty(), shape = c.model.has_value();
    rules.expect(folder || shape, {"model_name_or_path", "model"},
                 "model_name_or_path (a folder to start from) or model (a shape) is missing");
    rules.expect(!folder || !shape, {"model", "model_name_or_path"},
                 "model starts from random weights, model_name_or_path from a folder: give only one of them");
    if (c.tokenizer_name_or_path.empty()) c.tokenizer_name_or_path = c.model_name_or_path;
    if (!shape) return;
    settle_shape(*c.model, c, rules);
    rules.expect(
        !c.tokenizer_name_or_path.empty() || c.model->vocab_size > 0,
        {"model.vocab_size", "model", "tokenizer_name_or_path"},
        "model.vocab_size is missing and there is no tokenizer to take it from: give one of tokenizer_name_or_path and "
        "model.vocab_size");
}

/// Keys that are set although only another finetuning_type uses them.
void expect_unused(std::span<const std::pair<const char*, bool>> set, const char* user, const Config& c, Rules& rules) {
    std::string keys;
    const char* first = nullptr;
    for (const auto& [key, is_set] : set) {
        if (!is_set) continue;
        if (!first) first = key;
        keys += (keys.empty() ? "" : ", ") + std::string(key);
    }
    if (first && rules.given("finetuning_type"))
        rules.note("finetuning_type", "finetuning_type {}: without effect are {}", spell(c.finetuning_type), keys);
    else if (first)
        rules.expect(false, {first, "finetuning_type"}, "{} {} no effect without finetuning_type: {}", keys,
                     keys.find(',') == keys.npos ? "has" : "have", user);
}

void settle_freeze(Config& c, Rules& rules) {
    const bool patterns = !c.unfrozen_parameters.empty();
    if (c.finetuning_type != Finetuning::freeze) {
        const std::pair<const char*, bool> set[] = {{"freeze_trainable_layers", c.freeze_trainable_layers != 0},
                                                    {"freeze_trainable_modules", !c.freeze_trainable_modules.empty()},
                                                    {"freeze_extra_modules", !c.freeze_extra_modules.empty()},
                                                    {"unfrozen_parameters", patterns}};
        expect_unused(set, "freeze", c, rules);
        c.freeze_trainable_layers = 0;
        for (auto* names : {&c.freeze_trainable_modules, &c.freeze_extra_modules, &c.unfrozen_parameters})
            names->clear();
        return;
    }
    rules.expect(
        !c.export_checkpoints, {"export_checkpoints"},
        "export_checkpoints: with finetuning_type freeze a checkpoint holds only what is trained; remove the key; "
        "colonnade export makes a model of any checkpoint");
    rules.expect(!c.model, {"finetuning_type", "model"},
                 "finetuning_type freeze keeps layers of an existing model: give model_name_or_path instead of model");
    const bool layers =
        c.freeze_trainable_layers != 0 || !c.freeze_trainable_modules.empty() || !c.freeze_extra_modules.empty();
    rules.expect(!patterns || !layers, {"unfrozen_parameters", "freeze_trainable_layers", "freeze_trainable_modules"},
                 "unfrozen_parameters says what is trained instead of freeze_trainable_layers, "
                 "freeze_trainable_modules and freeze_extra_modules: give one or the other");
    if (patterns) return;
    if (!rules.given("freeze_trainable_layers")) c.freeze_trainable_layers = 2;
    if (c.freeze_trainable_modules.empty() && c.freeze_trainable_layers != 0) c.freeze_trainable_modules = {"all"};
    rules.expect(c.freeze_trainable_layers != 0 || !c.freeze_extra_modules.empty() || c.stage == Stage::rm,
                 {"freeze_trainable_layers"},
                 "freeze_trainable_layers 0 and no freeze_extra_modules: there is nothing "
                 "to train");
}

void settle_lora(Config& c, Rules& rules) {
    if (c.finetuning_type != Finetuning::lora) {
        const std::pair<const char*, bool> set[] = {
            {"lora_rank", c.lora_rank != 0},
            {"lora_alpha", c.lora_alpha != 0},
            {"lora_dropout", c.lora_dropout != 0},
            {"lora_target", !c.lora_target.empty()},
            {"use_rslora", c.use_rslora},
            {"modules_to_save", !c.modules_to_save.empty()},
            {"adapter_name_or_path", !c.adapter_name_or_path.empty()},
            {"base_quantization", c.base_quantization != BaseQuantization::none},
            {"export_merged", c.export_merged}};
        expect_unused(set, "lora", c, rules);
        const Config defaults;
        c.lora_rank = defaults.lora_rank, c.lora_alpha = defaults.lora_alpha, c.lora_dropout = defaults.lora_dropout;
        c.lora_target = defaults.lora_target, c.use_rslora = defaults.use_rslora;
        c.modules_to_save = defaults.modules_to_save, c.adapter_name_or_path = defaults.adapter_name_or_path;
        c.export_merged = defaults.export_merged, c.base_quantization = defaults.base_quantization;
        return;
    }
    rules.expect(!c.model, {"finetuning_type", "model"},
                 "finetuning_type lora adapts an existing model: give model_name_or_path instead of model");
    if (!rules.given("learning_rate")) c.learning_rate = 1e-4;
    // A reward model always trains its head.
    if (c.stage == Stage::rm && !rules.given("modules_to_save")) c.modules_to_save = {"score"};
    const std::set<std::string> score = {"score"};
    rules.expect(c.stage == Stage::rm ? c.modules_to_save == score : !c.modules_to_save.contains("score"),
                 {"modules_to_save", "stage"}, "modules_to_save {}: stage {} trains {}",
                 fmt::join(c.modules_to_save, ", "), spell(c.stage),
                 c.stage == Stage::rm ? "score whole and nothing else" : "no score; only stage rm does");
    if (c.lora_target.contains("all")) c.lora_target = {lora_modules().begin(), lora_modules().end()};
    // The adapters' own folder settles the rest when it is read (settle_adapter).
    if (!c.adapter_name_or_path.empty()) return;
    if (!rules.given("lora_rank")) c.lora_rank = 16;
    if (!rules.given("lora_alpha")) c.lora_alpha = 2 * static_cast<double>(c.lora_rank);
    if (!rules.given("lora_target")) c.lora_target = {lora_modules().begin(), lora_modules().end()};
    rules.expect(c.lora_rank > 0, {"lora_rank"}, "lora_rank 0: expected 1 or more");
    rules.expect(c.lora_alpha > 0 || c.lora_rank == 0, {"lora_alpha", "lora_rank"},
                 "lora_alpha 0: the adapters would have no effect");
    rules.expect(!c.lora_target.empty(), {"lora_target"}, "lora_target none: there is nothing to train");
}

void settle_data(Config& c, Rules& rules) {
    rules.expect(!c.datasets.empty(), {"datasets"},
                 "datasets is missing: expected a list such as [{{path: train.jsonl}}]");
    rules.expect(c.val_size == 0 || c.eval_datasets.empty(), {"val_size", "eval_datasets"},
                 "val_size and eval_datasets exclude each other");
    rules.expect(c.val_size < 1 || c.val_size == std::floor(c.val_size), {"val_size"},
                 "val_size {}: expected a share below 1 or a whole number of samples", c.val_size);
    for (const auto& [role, token] : c.special_tokens) {
        const bool known = role == "bos_token" || role == "eos_token" || role == "pad_token" || role == "unk_token";
        rules.expect(known && !token.empty(), {"special_tokens"},
                     "special_tokens: {} '{}': expected bos_token, eos_token, pad_token or unk_token with a token",
                     role, token);
    }
    for (const auto& [key, tokens] :
         {std::pair("add_special_tokens", &c.add_special_tokens), {"add_tokens", &c.add_tokens}})
        rules.expect(std::ranges::find(*tokens, std::string()) == tokens->end(), {key}, "{}: a token is empty", key);
    if (c.dataset_num_proc == 0) c.dataset_num_proc = c.threads;
    if (c.prepared_path.empty() && !c.output_dir.empty()) c.prepared_path = c.output_dir + "/prepared";
}

void check_labels(const Config& c, Rules& rules) {
    rules.expect(chat_template_clock(c).has_value(), {"chat_template_date"},
                 "chat_template_date '{}': expected a date such as 2025-01-31", c.chat_template_date);
    const bool answers = c.rows() != RowKind::texts;
    rules.expect(!answers || !c.train_on_prompt, {"train_on_prompt", "stage"},
                 "train_on_prompt: true contradicts stage {}: only answers are compared", spell(c.stage));
    rules.expect(!answers || c.train_on_eos != TrainOnEos::all, {"train_on_eos", "stage"},
                 "train_on_eos: all contradicts stage {}: only answers are compared, the prompt's end tokens are not",
                 spell(c.stage));
    rules.expect(!answers || c.history != History::per_turn, {"history", "stage"},
                 "history: per_turn contradicts stage {}: only the last answers are compared; use auto",
                 spell(c.stage));
    rules.expect(!c.train_on_prompt || c.history != History::per_turn, {"history", "train_on_prompt"},
                 "history: per_turn contradicts train_on_prompt: true: a prompt is not generated; use auto");
}

/// Settles the keys that depend on the device.
void settle_for(Device device, Config& c, Rules& rules) {
    const bool gpu = device == Device::cuda;
    rules.expect(gpu || c.bf16 != Tristate::on, {"bf16", "device"},
                 "bf16: true needs a GPU, the CPU computes in fp32; use auto");
    rules.expect(!gpu || c.bf16 != Tristate::off, {"bf16", "device"},
                 "bf16: false needs device: cpu, a GPU computes in bf16; use auto");
    rules.expect(gpu || c.optim_dtype == DType::f32, {"optim_dtype", "device"},
                 "optim_dtype bfloat16 needs a GPU, the CPU keeps moments in float32");
    c.device = gpu ? DeviceChoice::cuda : DeviceChoice::cpu;
    c.bf16 = gpu ? Tristate::on : Tristate::off;
    c.deterministic = c.deterministic || !gpu;
    if (c.head_chunk == 0) c.head_chunk = gpu ? 4096 : 256;
}

void settle_run(Config& c, Rules& rules) {
    if (!rules.given("per_device_eval_batch_size")) c.per_device_eval_batch_size = c.per_device_train_batch_size;
    constexpr int64_t most_tokens = 1 << 30;  // the rows of a batch have numbers of 32 bits
    for (const auto& [key, packs] : {std::pair("per_device_train_batch_size", c.per_device_train_batch_size),
                                     std::pair("per_device_eval_batch_size", c.per_device_eval_batch_size)})
        rules.expect(packs * c.packing_length <= most_tokens, {key, "packing_length"},
                     "{} {} with packing_length {}: expected at most {} tokens at a time", key, packs, c.packing_length,
                     most_tokens);
    if (c.max_steps > 0 && c.num_train_epochs > 0) {
        if (rules.given("num_train_epochs")) rules.note("num_train_epochs", "num_train_epochs: max_steps decides");
        c.num_train_epochs = 0;
    }
    rules.expect(c.max_steps > 0 || c.num_train_epochs > 0, {"num_train_epochs", "max_steps"},
                 "num_train_epochs or max_steps must be above 0");
    if (!rules.given("data_seed")) c.data_seed = c.seed;
    if (!rules.given("adam_beta2") && c.stage == Stage::pt) c.adam_beta2 = 0.95;
    rules.expect(!c.use_dft_loss || c.rows() == RowKind::texts, {"use_dft_loss", "stage"},
                 "use_dft_loss is for stages pt and sft, this is stage {}", spell(c.stage));
    rules.expect(c.neftune_noise_alpha == 0 || c.rows() == RowKind::texts, {"neftune_noise_alpha", "stage"},
                 "neftune_noise_alpha is for stages pt and sft: answers of stage {} share their prompt, whose noise "
                 "would be that of one of them",
                 spell(c.stage));
    const bool muon = c.optim == Optim::muon;
    rules.expect(!muon || c.finetuning_type != Finetuning::lora, {"optim", "finetuning_type"},
                 "optim muon is for the matrices of a model, not for adapters: use adamw with finetuning_type lora");
    rules.expect(!muon || c.zero_stage == 0, {"zero_stage", "optim"},
                 "optim muon needs whole matrices on every rank: zero_stage 0");
    rules.expect(!muon || c.offload_optimizer.value == 0, {"offload_optimizer", "optim"},
                 "optim muon needs its state on the GPU: leave out offload_optimizer, or use adamw");
    rules.expect(!muon || c.offload_weights.count == 0, {"offload_weights", "optim"},
                 "optim muon needs all weights on the GPU: leave out offload_weights, or use adamw");
    rules.expect(muon || c.muon_momentum == Config().muon_momentum, {"muon_momentum", "optim"},
                 "muon_momentum is for optim muon");
    rules.expect(c.optim == Optim::adamw || c.optim_dtype == DType::f32, {"optim_dtype", "optim"},
                 "optim_dtype is for optim adamw; {} has its own types", spell(c.optim));
}

void settle_schedule(Config& c, Rules& rules) {
    const LrScheduler type = c.lr_scheduler_type;
    const bool constant = type == LrScheduler::constant, wsd = type == LrScheduler::wsd;
    const bool polynomial = type == LrScheduler::polynomial;
    const bool has_floor = wsd || polynomial || type == LrScheduler::cosine_with_min_lr;

    if (!rules.given("warmup_ratio") && (rules.given("warmup_steps") || constant)) c.warmup_ratio = 0;
    rules.expect(c.warmup_steps == 0 || c.warmup_ratio == 0, {"warmup_ratio", "warmup_steps"},
                 "warmup_steps and warmup_ratio exclude each other");
    rules.expect(!constant || (c.warmup_steps == 0 && c.warmup_ratio == 0),
                 {"warmup_steps", "warmup_ratio", "lr_scheduler_type"},
                 "lr_scheduler_type constant has no warm-up; use constant_with_warmup");

    rules.expect(c.min_lr == 0 || c.min_lr_rate == 0, {"min_lr_rate", "min_lr"},
                 "min_lr and min_lr_rate exclude each other");
    rules.expect(has_floor || (c.min_lr == 0 && c.min_lr_rate == 0), {"min_lr", "min_lr_rate", "lr_scheduler_type"},
                 "lr_scheduler_type {} takes no min_lr; cosine_with_min_lr, polynomial and wsd do", spell(type));
    rules.expect(type != LrScheduler::cosine_with_min_lr || c.min_lr > 0 || c.min_lr_rate > 0,
                 {"lr_scheduler_type", "min_lr", "min_lr_rate"},
                 "lr_scheduler_type cosine_with_min_lr needs min_lr or min_lr_rate above 0");
    if (polynomial && !rules.given("min_lr") && c.min_lr_rate == 0) c.min_lr = std::min(1e-7, c.learning_rate);
    const auto only_for = [&](bool untouched, const char* key, LrScheduler owner) {
        rules.expect(untouched || type == owner, {key, "lr_scheduler_type"}, "{} is for lr_scheduler_type {}", key,
                     spell(owner));
    };
    only_for(c.lr_cycles == 1, "lr_cycles", LrScheduler::cosine_with_restarts);
    only_for(c.lr_power == 1, "lr_power", LrScheduler::polynomial);
    only_for(c.lr_timescale == 0, "lr_timescale", LrScheduler::inverse_sqrt);
    rules.expect(c.min_lr <= c.learning_rate, {"min_lr", "learning_rate"}, "min_lr {} is above learning_rate {}",
                 c.min_lr, c.learning_rate);

    if (wsd && !rules.given("wsd_decay_ratio") && c.wsd_decay_steps == 0) c.wsd_decay_ratio = 0.1;
    rules.expect(!wsd || (c.wsd_decay_steps > 0) != (c.wsd_decay_ratio > 0), {"wsd_decay_ratio", "wsd_decay_steps"},
                 "wsd needs one of wsd_decay_steps and wsd_decay_ratio above 0");
    rules.expect(wsd || (c.wsd_decay_steps == 0 && c.wsd_decay_ratio == 0 && c.wsd_decay_type == LrDecay::cosine),
                 {"wsd_decay_steps", "wsd_decay_ratio", "wsd_decay_type", "lr_scheduler_type"},
                 "lr_scheduler_type {} takes no wsd_decay_*", spell(type));
    rules.expect(c.warmup_ratio + c.wsd_decay_ratio <= 1, {"wsd_decay_ratio", "warmup_ratio"},
                 "warmup_ratio {} + wsd_decay_ratio {} is more than 1", c.warmup_ratio, c.wsd_decay_ratio);
    rules.expect(c.max_steps == 0 || c.warmup_steps + c.wsd_decay_steps <= c.max_steps,
                 {"warmup_steps", "wsd_decay_steps", "max_steps"},
                 "warmup_steps {} + wsd_decay_steps {} is more than max_steps {}", c.warmup_steps, c.wsd_decay_steps,
                 c.max_steps);
}

/// When to evaluate or save: the strategy, and its number.
struct When {
    Every& every;
    int64_t &steps, &per_epoch;
    const char *strategy_key, *steps_key, *per_epoch_key;
};

/// A strategy of "steps" needs a number of steps; a strategy of "epoch" takes a number per epoch. What the strategy does
/// not use has no effect.
void settle_when(const When& when, Rules& rules) {
    if (!rules.given(when.strategy_key)) {
        if (when.per_epoch > 0) when.every = Every::epoch;
        if (when.steps > 0) when.every = Every::steps;
    }
    rules.expect(when.every != Every::steps || when.steps > 0, {when.strategy_key, when.steps_key},
                 "{} steps needs {} above 0", when.strategy_key, when.steps_key);
    const auto use = [&](bool used, int64_t& number, const char* key) {
        if (used || number == 0) return;
        if (rules.given(key)) rules.note(key, "{} has no effect with {} {}", key, when.strategy_key, spell(when.every));
        number = 0;
    };
    use(when.every == Every::steps, when.steps, when.steps_key);
    use(when.every == Every::epoch, when.per_epoch, when.per_epoch_key);
}

/// The keys that compare evaluations.
void settle_best(Config& c, Rules& rules) {
    if (!rules.given("load_best_model_at_end"))
        c.load_best_model_at_end = c.early_stopping_patience > 0 && c.save_strategy != Every::never;
    const std::pair<const char*, bool> uses[] = {{"load_best_model_at_end", c.load_best_model_at_end},
                                                 {"early_stopping_patience", c.early_stopping_patience > 0},
                                                 {"save_strategy", c.save_strategy == Every::best}};
    for (const auto& [key, compares] : uses) {
        if (!compares) continue;
        if (c.metric_for_best_model.empty()) c.metric_for_best_model = "loss";
        rules.expect(c.eval_strategy != Every::never, {key, "eval_strategy"}, "{} compares evaluations: {}", key,
                     c.has_eval_data() ? "set eval_strategy to steps or epoch" : "give eval_datasets or val_size");
    }
    rules.expect(
        !c.load_best_model_at_end || c.save_strategy != Every::never, {"load_best_model_at_end", "save_strategy"},
        "load_best_model_at_end takes the best checkpoint, but save_strategy no writes none: set save_strategy "
        "to best (the fewest), epoch or steps");
    std::string& metric = c.metric_for_best_model;
    if (metric.empty()) return;
    if (!metric.starts_with("eval_")) metric = "eval_" + metric;
    // As transformers has it, which logs no perplexity.
    if (c.greater_is_better == Tristate::automatic)
        c.greater_is_better = metric.ends_with("loss") || metric.ends_with("perplexity") ? Tristate::off : Tristate::on;
    if (c.early_stopping_threshold > 0 && c.early_stopping_patience == 0)
        rules.note("early_stopping_threshold",
                   "early_stopping_threshold has no effect without early_stopping_patience");
}

void settle_output(Config& c, Rules& rules) {
    rules.expect(!c.output_dir.empty(), {"output_dir"}, "output_dir is missing");
    if (!rules.given("eval_strategy") && c.has_eval_data()) c.eval_strategy = Every::epoch;
    settle_when({c.eval_strategy, c.eval_steps, c.evals_per_epoch, "eval_strategy", "eval_steps", "evals_per_epoch"},
                rules);
    settle_when({c.save_strategy, c.save_steps, c.saves_per_epoch, "save_strategy", "save_steps", "saves_per_epoch"},
                rules);
    rules.expect(c.eval_strategy != Every::best, {"eval_strategy"},
                 "eval_strategy: expected one of no, steps, epoch, found 'best', which is for save_strategy");
    settle_best(c, rules);
    const bool evaluates = c.eval_strategy != Every::never || c.eval_on_start;
    rules.expect(!evaluates || c.has_eval_data(),
                 {"eval_strategy", "eval_steps", "eval_on_start", "eval_datasets", "val_size"},
                 "there is nothing to evaluate on: give eval_datasets or val_size");
    if (c.export_checkpoints && c.save_strategy == Every::never && rules.given("export_checkpoints"))
        rules.note("export_checkpoints", "export_checkpoints has no effect with save_strategy no");
    rules.expect(c.eval_table_size == 0 || evaluates, {"eval_table_size"},
                 "eval_table_size answers prompts at evaluations: {}",
                 c.has_eval_data() ? "set eval_strategy to steps or epoch" : "give eval_datasets or val_size");
    rules.expect(
        c.eval_table_size == 0 || c.offload_weights.count == 0, {"eval_table_size", "offload_weights"},
        "eval_table_size answers prompts with weights that are on the GPU: leave out one of eval_table_size and "
        "offload_weights");
    rules.expect(c.eval_table_size == 0 || c.stage != Stage::rm, {"eval_table_size", "stage"},
                 "eval_table_size: the model of stage rm scores answers and gives none");
    rules.expect(!c.overwrite_output_dir || c.resume_from_checkpoint.empty(),
                 {"overwrite_output_dir", "resume_from_checkpoint"},
                 "overwrite_output_dir and resume_from_checkpoint exclude each other");
}

/// Settles all keys except those about model, data, device and output.
void settle_training(Config& config, Rules& rules) {
    settle_lora(config, rules);
    settle_freeze(config, rules);
    settle_packing(config, rules);
    check_labels(config, rules);
    settle_run(config, rules);
    settle_preferences(config, rules);
    settle_policy(config, rules);
    settle_distillation(config, rules);
    settle_rewards(config, rules);
    settle_schedule(config, rules);
}

}  // namespace

void settle_config(Config& config, Reading& reading, const std::string& name) {
    Rules rules(reading, name);
    settle_model(config, rules);
    settle_data(config, rules);
    check_memory(config, rules);
    settle_training(config, rules);
    if (config.device != DeviceChoice::automatic)
        settle_for(config.device == DeviceChoice::cuda ? Device::cuda : Device::cpu, config, rules);
    settle_output(config, rules);
}

void settle_defaults(Config& config, const std::set<std::string>& given, const std::string& name) {
    Reading reading;
    for (const std::string& key : given) reading.given.emplace(key, name);
    Rules rules(reading, name);
    settle_training(config, rules);
    reading.problems.raise(name);
}

void settle_device(Config& config, Device device) {
    Reading reading;
    std::string name = fmt::format("device: {}", spell(config.device));
    if (config.device == DeviceChoice::automatic) name += fmt::format(", which is {} here", name_of(device));
    Rules rules(reading, name);
    settle_for(device, config, rules);
    reading.problems.raise(name);
}

}  // namespace colonnade
