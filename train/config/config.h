#pragma once
// Config: all settings of a training run, one plain field per key of the YAML file. Reading is strict: unknown keys,
// keys given twice (also under an alias), wrong types, values out of range and contradictions are errors. All of them
// are reported at once, each with its place and with what was expected. After loading, every field holds the value that
// the run uses; defaults that depend on other keys are settled. docs/config.md describes the keys. The table behind
// reading, printing and that page is train/config/keys.cpp.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/packing/packer.h"
#include "data/rows/rows.h"
#include "data/samples/encode.h"
#include "data/store/score_table.h"
#include "data/text/text_folder.h"
#include "layers/policy_formulas.h"
#include "layers/ranking_loss.h"
#include "layers/unpaired_formulas.h"
#include "train/model/freeze.h"
#include "train/model/lora.h"
#include "train/model/model_config.h"
#include "train/model/recompute.h"
#include "train/optimizer/adamw.h"
#include "train/optimizer/lr_schedule.h"

namespace colonnade {

/// Pretraining on text, supervised fine-tuning, direct preference optimisation, reward model, answers with a label,
/// policy gradients over given answers, distillation from the log-probabilities of a teacher.
enum class Stage { pt, sft, dpo, rm, kto, grpo, distill };
enum class DeviceChoice { automatic, cpu, cuda };
enum class Tristate { automatic, on, off };
/// When to evaluate or save: never, every n steps, after every epoch; saves also at the best evaluations only.
enum class Every { never, steps, epoch, best };
enum class Finetuning { full, lora, freeze };  ///< train the whole model, adapters beside it, or some of its layers
/// How the weights of the frozen base's linear layers are stored (layers/quantised_matrix.h).
enum class BaseQuantization { none, fp8, nf4 };
/// What the products of blocks' linear layers are computed in (layers/fp8_product.h).
enum class Compute { bf16, fp8 };
enum class Optim { adamw, adamw_8bit, muon };
/// Where the log-probabilities under the policy that drew the answers come from: the rows; the weights that training
/// starts from; nowhere, so that every ratio is 1.
enum class OldLogps { row, start, none };
enum class Report { jsonl, tensorboard, csv, wandb, trackio, mlflow };
/// What to do about a step whose loss or gradient norm is a spike (train/step/spike_watch.h): nothing; warn; leave its
/// update out; save the state before it and end the run.
enum class LossSpike { off, warn, skip, stop };

/// A share of something: true is all of it, false nothing.
struct Share {
    double value = 0;
    bool operator==(const Share&) const = default;
};
/// A number of a model's blocks, or all of them.
struct BlockCount {
    int64_t count = 0;
    static constexpr int64_t all = int64_t{1} << 30;  ///< more than any model has
    bool operator==(const BlockCount&) const = default;
};

/// A size of memory in bytes; 0: none is given.
struct MemorySize {
    int64_t bytes = 0;
    bool operator==(const MemorySize&) const = default;
};
/// Whether settings that leave results as they are, but for rounding, are chosen so that the run fits (train/run/fit.h).
enum class Fit { off, automatic };

struct Config {
    // Model: a folder to start from, or a shape that starts from random weights.
    std::string model_name_or_path;
    std::optional<ModelShape> model;     ///< vocab_size 0: the tokenizer's
    std::string tokenizer_name_or_path;  ///< default: model_name_or_path; empty: the rows are pre-tokenised
    Stage stage = Stage::sft;

    // LoRA. All of these are 0, empty or false with finetuning_type full.
    Finetuning finetuning_type = Finetuning::full;
    int64_t lora_rank = 0;              ///< default: 16, or that of adapter_name_or_path
    double lora_alpha = 0;              ///< default: 2 * lora_rank, or that of adapter_name_or_path
    double lora_dropout = 0;            ///< share of the adapters' input
    std::set<std::string> lora_target;  ///< default: all of lora_modules(), or those of adapter_name_or_path
    bool use_rslora = false;
    std::set<std::string> modules_to_save;  ///< parameters trained whole: lm_head, score, or none
    std::string adapter_name_or_path;       ///< adapters to continue; empty: fresh ones
    BaseQuantization base_quantization = BaseQuantization::none;
    bool export_merged = false;

    // Frozen layers. All of these are 0 or empty with another finetuning_type.
    int64_t freeze_trainable_layers = 0;             ///< default: 2, or 0 with unfrozen_parameters
    std::set<std::string> freeze_trainable_modules;  ///< default: all, or none with unfrozen_parameters
    std::set<std::string> freeze_extra_modules;
    std::set<std::string> unfrozen_parameters;

    // Machine.
    DeviceChoice device = DeviceChoice::automatic;  ///< automatic until settle_device()
    int64_t device_index = 0;
    int64_t threads = 0;                  ///< 0: one per core
    Tristate bf16 = Tristate::automatic;  ///< settled: on for a GPU, off for the CPU
    Compute compute = Compute::bf16;
    Recompute gradient_checkpointing = Recompute::none;
    BlockCount offload_activations, offload_weights;
    bool deterministic = false;         ///< settled: always true on the CPU
    int64_t recompute_check_steps = 0;  ///< 0: never

    // Memory.
    Fit fit = Fit::off;
    MemorySize gpu_memory;   ///< of a GPU, with cuda_memory; default: what it has
    MemorySize host_memory;  ///< that the ranks of a machine may plan; default: what it has free

    // Several ranks.
    int64_t zero_stage = 0;              ///< 1: the optimizer state is sharded
    DType grad_sync_dtype = DType::f32;  ///< dtype of the gradients sent between ranks: f32 or bf16
    double ddp_timeout = 600;            ///< seconds
    int64_t param_checksum_steps = 100;  ///< 0: never

    // Data.
    std::vector<DatasetSpec> datasets;
    std::vector<DatasetSpec> eval_datasets;
    double val_size = 0;  ///< below 1: a share of the samples; otherwise a count
    int64_t max_length = 2048;
    ExcessLength excess_length = ExcessLength::drop;
    std::string prepared_path;     ///< default: <output_dir>/prepared
    int64_t dataset_num_proc = 0;  ///< default: threads

    // Added tokens.
    std::map<std::string, std::string> special_tokens;  ///< by role: bos_token, eos_token, pad_token, unk_token
    std::vector<std::string> add_special_tokens, add_tokens;
    int64_t pad_vocab_to_multiple_of = 1;

    // Labels.
    std::string chat_template = "auto";          ///< data/text/choose_template.h
    Json chat_template_kwargs = Json::object();  ///< variables of the template
    std::string chat_template_date = "2025-01-01";
    bool allow_spelled_out_markers = false;
    Spelled special_tokens_in_text = Spelled::text;
    bool train_on_thinking = true;
    bool train_on_tool_calls = true;
    bool train_on_prompt = false;
    std::set<std::string> roles_to_train = {"assistant"};
    TrainOnEos train_on_eos = TrainOnEos::turn;
    bool mask_history = false;
    History history = History::automatic;
    bool add_bos = true;
    bool add_eos = true;

    // Preferences and rewards.
    std::vector<PreferenceLoss> loss_type = {PreferenceLoss::sigmoid};
    std::optional<UnpairedLoss> unpaired_loss;  ///< loss_type of stage kto; settled
    std::vector<double> loss_weights;           ///< settled: one per loss
    double beta = 0.1;                          ///< default 0 in stages grpo and distill
    double label_smoothing = 0;
    double simpo_gamma = 0.5;
    double desirable_weight = 1, undesirable_weight = 1;
    bool precompute_ref_log_probs = false;  ///< settled: false if the loss needs no reference
    std::string ref_model_name_or_path;     ///< empty: the model that training starts from
    RankingKind reward_loss = RankingKind::pairwise;
    double center_rewards_coefficient = 0;

    // Distillation.
    double kd_alpha = 1, kd_ce_alpha = 0;  ///< weights of the divergence and of the cross-entropy
    RankedPairs ranking_pairs = RankedPairs::all;

    // Policy gradients. Of loss_type in stage grpo; settled there, nothing in the other stages:
    std::optional<PolicyLoss> policy_loss{};
    RatioLevel importance_sampling_level = RatioLevel::token;  ///< default sequence for luspo; rloo: sequence_sum
    double epsilon = 0.2;
    double epsilon_high = 0.2;  ///< default: epsilon, or 5 for cispo
    double delta = 0;           ///< 0: none
    bool use_bias_correction_kl = true;
    double sapo_temperature_pos = 1, sapo_temperature_neg = 1.05;
    double temperature = 1;             ///< of stage distill, too
    int64_t max_completion_length = 0;  ///< 0: not given, and not needed
    OldLogps old_logps = OldLogps::row;
    bool vllm_importance_sampling_correction = true;
    ImportanceMode vllm_importance_sampling_mode = ImportanceMode::sequence_mask;
    double vllm_importance_sampling_clip_max = 3;  ///< 0: none
    double vllm_importance_sampling_clip_min = 0;
    // Rewards of stage grpo.
    AdvantageScale scale_rewards = AdvantageScale::group;
    std::vector<double> reward_weights;  ///< of the reward functions; empty: all 1
    RewardAggregation multi_objective_aggregation = RewardAggregation::sum_then_normalize;
    bool normalize_advantages = false;
    std::vector<double> reward_clip_range;  ///< least and greatest; empty: none
    bool mask_truncated_completions = false;

    // Packing.
    bool packing = true;
    PackStrategy packing_strategy = PackStrategy::bfd;  ///< none if and only if packing is false
    int64_t packing_length = 0;                         ///< default: max_length, or twice that for preferences
    int64_t packing_window = 10000;
    bool eval_packing = true;  ///< default: packing
    Tristate share_prefixes = Tristate::automatic;
    bool document_mask = true;

    // Batch and length of the run.
    int64_t per_device_train_batch_size = 1;  ///< packs per micro-step
    int64_t per_device_eval_batch_size = 0;   ///< default: per_device_train_batch_size
    int64_t gradient_accumulation_steps = 1;
    double num_train_epochs = 3;  ///< 0: max_steps decides; default 1 in stages dpo, rm, kto and grpo
    int64_t max_steps = 0;        ///< 0: num_train_epochs decides
    int64_t head_chunk = 0;       ///< 0 until settled: 256 on the CPU, 4096 on a GPU

    // Optimizer and schedule.
    Optim optim = Optim::adamw;
    DType optim_dtype = DType::f32;  ///< dtype of the moments: f32 or bf16
    Share offload_optimizer{};       ///< of the optimizer's state; 0 on the CPU
    double learning_rate = 2e-5;     ///< default 1e-4 with LoRA; 1e-6 in stages dpo, kto and grpo, 5e-6 with both
    LrScheduler lr_scheduler_type = LrScheduler::cosine;
    int64_t warmup_steps = 0;
    double warmup_ratio = 0.03;  ///< 0 if warmup_steps decides
    double min_lr = 0;           ///< at most one of min_lr and min_lr_rate is above 0
    double min_lr_rate = 0;
    int64_t lr_cycles = 1;
    double lr_power = 1;
    int64_t lr_timescale = 0;     ///< 0: warmup_steps, or 10000
    int64_t wsd_decay_steps = 0;  ///< wsd only: exactly one of these two is above 0
    double wsd_decay_ratio = 0;
    LrDecay wsd_decay_type = LrDecay::cosine;
    double muon_momentum = 0.95;
    double adam_beta1 = 0.9;
    double adam_beta2 = 0.999;  ///< default 0.95 in stage pt
    double adam_epsilon = 1e-8;
    double weight_decay = 0;
    double max_grad_norm = 1;  ///< 0: no clipping
    LossSpike loss_spike = LossSpike::warn;
    double loss_spike_z = 6;
    int64_t loss_spike_window = 128;  ///< steps
    double neftune_noise_alpha = 0;   ///< 0: no noise
    bool use_dft_loss = false;
    int64_t seed = 42;
    int64_t data_seed = 42;  ///< default: seed

    // Output.
    std::string output_dir;
    bool overwrite_output_dir = false;
    int64_t logging_steps = 10;
    std::set<Report> report_to = {Report::jsonl, Report::tensorboard};
    std::string project = "colonnade", run_name;
    Every eval_strategy = Every::never;  ///< default: epoch if there is evaluation data
    int64_t eval_steps = 0;              ///< above 0 if and only if eval_strategy is steps
    int64_t evals_per_epoch = 0;
    bool eval_on_start = false;
    int64_t eval_table_size = 0;  ///< sample answers at every evaluation
    int64_t eval_max_new_tokens = 128;
    Every save_strategy = Every::epoch;
    int64_t save_steps = 0;  ///< above 0 if and only if save_strategy is steps
    int64_t saves_per_epoch = 0;
    int64_t save_total_limit = 2;  ///< 0: keep all
    bool export_checkpoints = false;
    bool load_best_model_at_end = false;
    std::string metric_for_best_model;                 ///< settled: begins with eval_; empty: nothing is compared
    Tristate greater_is_better = Tristate::automatic;  ///< settled if there is a metric
    int64_t early_stopping_patience = 0;               ///< 0: never stops early
    double early_stopping_threshold = 0;
    Tristate async_save = Tristate::automatic;
    std::string resume_from_checkpoint;  ///< empty: start anew; "auto": the newest complete checkpoint; else a folder

    /// Not keys: what a path was given as, if it is in the cache of a hub: org/name@commit (train/run/local_names.h).
    std::map<std::string, std::string> hub_names{};
    /// The name of a path, or the path itself.
    const std::string& name_of(const std::string& path) const {
        const auto found = hub_names.find(path);
        return found == hub_names.end() ? path : found->second;
    }
    /// The fields that name models, tokenizers, adapters (these come first) and data.
    static constexpr size_t model_names = 4;
    std::vector<std::string*> names();

    /// The kind of rows that the stage reads.
    RowKind rows() const {
        if (stage == Stage::dpo || stage == Stage::rm) return RowKind::preferences;
        if (stage == Stage::kto) return RowKind::labelled;
        if (stage == Stage::distill) return RowKind::taught;
        return stage == Stage::grpo ? RowKind::scored : RowKind::texts;
    }
    bool has_eval_data() const { return !eval_datasets.empty() || val_size > 0; }
};

struct LoadedConfig {
    Config config;
    std::vector<std::string> notices;  ///< one line per alias that was used
    std::set<std::string> given{};     ///< keys that have a value: "seed", "datasets[0].path"
};

/// Reads a YAML file and applies `arguments` to it: key=value, --key value, --key=value; keys may be paths such as
/// model.hidden_size=64 and datasets[0].path=x. Throws Exit::config.
LoadedConfig load_config(const std::string& path, const std::vector<std::string>& arguments = {});
/// Parses YAML text in the same way; `name` stands for the file in messages.
LoadedConfig parse_config(std::string_view yaml, const std::string& name,
                          const std::vector<std::string>& arguments = {});

/// A config as it is written: keys that are not given, or that cannot be read, have no settled value.
struct WrittenConfig {
    Config config;
    std::set<std::string> given;  ///< keys that have a value, such as model.head_dim
};
WrittenConfig read_written(std::string_view yaml, const std::string& name,
                           const std::vector<std::string>& arguments = {});

/// Settles the defaults of a config that code has filled, as reading would, except for the keys about model, data,
/// device and output. Keys named in `given` keep their values. Throws Exit::config, naming `name`, if keys contradict
/// each other.
void settle_defaults(Config& config, const std::set<std::string>& given, const std::string& name);

/// Replaces device: auto by `device` and settles the keys that depend on it: bf16, deterministic, head_chunk. Throws
/// Exit::config if a key asks for something that the device cannot do. Reading does this already if the config names
/// its device.
void settle_device(Config& config, Device device);

/// Every key with its value as YAML, in the table's order. Parsing it gives the same config back.
std::string resolved_yaml(const Config& config);
/// Of the keys in `given` those whose values differ from the defaults, as YAML.
std::string changed_yaml(const Config& config, const std::set<std::string>& given);

/// Key and value of every key that all ranks of a run must agree on, in the table's order.
std::vector<std::pair<std::string, std::string>> values_shared_by_ranks(const Config& config);

/// "learning_rate: 1e-4, now 2e-4": one line per key that differs and affects the trained weights, to the bit. Keys
/// that only say where and how to run (threads, output, logging, saving, evaluation, resuming) are left out. So is
/// device: what differs between devices shows in bf16, deterministic and head_chunk.
std::vector<std::string> config_changes(const Config& then, const Config& now);

/// All keys as a Markdown page: docs/config.md.
std::string config_reference();
/// All keys as plain text, for train --keys.
std::string config_help();

// Settings of the other parts. `total_steps`: optimizer steps of the whole run.
/// The date that templates see; nothing if it is not one.
std::optional<jinja::Clock> chat_template_clock(const Config& config);
EncodeOptions encode_options(const Config& config, int64_t vocab_size);
RewardSettings reward_settings(const Config& config);
PackSettings train_packing(const Config& config);
PackSettings eval_packing(const Config& config);
LrSchedule lr_schedule(const Config& config, int64_t total_steps);
AdamWSettings adamw_settings(const Config& config);
TokenAdditions token_additions(const Config& config);
/// Nothing with another finetuning_type.
std::optional<LoraSettings> lora_settings(const Config& config);
std::optional<WeightCode> base_code(const Config& config);
std::optional<FreezeSettings> freeze_settings(const Config& config);

}  // namespace colonnade
