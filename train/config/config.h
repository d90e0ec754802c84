#pragma once
// Config: everything a training run is told, one plain field per key of the YAML file. Reading is strict: unknown keys,
// keys given twice (under an alias too), wrong types, values out of range and contradictions are errors, and all of
// them come at once, each with its place and what was expected. After loading every field holds what the run will use:
// defaults that hang on other keys are settled. docs/config.md describes the keys; train/config/config_keys.cpp is the table
// behind reading, printing and that page.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/packing/packer.h"
#include "data/rows/rows.h"
#include "data/samples/encode.h"
#include "layers/ranking_loss.h"
#include "train/model/model_config.h"
#include "train/model/transformer.h"
#include "train/optimizer/adamw.h"
#include "train/optimizer/lr_schedule.h"

namespace colonnade {

/// Pretraining on text, supervised fine-tuning, direct preference optimisation, reward model.
enum class Stage { pt, sft, dpo, rm };
enum class DeviceChoice { automatic, cpu, cuda };
enum class Switch { automatic, on, off };
enum class When { no, steps, epoch };  ///< evaluate or save: never, every so many steps, after every epoch
enum class Finetuning { full, lora };  ///< train the whole model, or adapters beside it
enum class Optimizer { adamw };
enum class Report { jsonl, tensorboard };

/// A model to start from random weights.
struct ModelShape {
    Architecture architecture = Architecture::llama;
    int64_t hidden_size = 0;
    int64_t intermediate_size = 0;
    int64_t num_hidden_layers = 0;
    int64_t num_attention_heads = 0;
    int64_t num_key_value_heads = 0;  ///< default: num_attention_heads
    int64_t head_dim = 0;             ///< default: hidden_size / num_attention_heads
    int64_t vocab_size = 0;           ///< 0: the tokenizer's
    int64_t max_position_embeddings = 2048;
    double rope_theta = 10000;
    double rms_norm_eps = 1e-6;
    bool tie_word_embeddings = false;
    int64_t sliding_window = 0;  ///< keys each query sees, itself included; 0: all before it
    double initializer_range = 0.02;
};

struct Config {
    // Model: a folder to start from, or a shape to start from random weights.
    std::string model_name_or_path;
    std::optional<ModelShape> model;
    std::string tokenizer_name_or_path;  ///< default: model_name_or_path; empty: rows are pre-tokenised
    Stage stage = Stage::sft;

    // LoRA. With finetuning_type full all of these are 0, empty or false.
    Finetuning finetuning_type = Finetuning::full;
    int64_t lora_rank = 0;              ///< default: 16, or that of adapter_name_or_path
    double lora_alpha = 0;              ///< default: 2 * lora_rank, or that of adapter_name_or_path
    double lora_dropout = 0;            ///< of the adapters' input
    std::set<std::string> lora_target;  ///< default: all of lora_modules(), or those of adapter_name_or_path
    bool use_rslora = false;
    std::set<std::string> modules_to_save;  ///< trained whole: lm_head, or none
    std::string adapter_name_or_path;       ///< adapters to go on with; empty: fresh ones
    bool export_merged = false;

    // Machine.
    DeviceChoice device = DeviceChoice::automatic;  ///< automatic until settle_device()
    int64_t device_index = 0;
    int64_t threads = 0;              ///< 0: one per core
    Switch bf16 = Switch::automatic;  ///< settled: on exactly on a GPU
    Recompute gradient_checkpointing = Recompute::none;
    bool deterministic = false;  ///< settled: on the CPU always true

    // Several ranks.
    int64_t zero_stage = 0;              ///< 1: optimizer state is sharded
    DType grad_sync_dtype = DType::f32;  ///< what gradients travel in: f32 or bf16
    double ddp_timeout = 600;            ///< seconds
    int64_t param_checksum_steps = 100;  ///< 0: never

    // Data.
    std::vector<DatasetSpec> datasets;
    std::vector<DatasetSpec> eval_datasets;
    double val_size = 0;  ///< below 1: a share of the samples; from 1 on: a count
    int64_t max_length = 2048;
    ExcessLength excess_length = ExcessLength::drop;
    std::string prepared_path;     ///< default: <output_dir>/prepared
    int64_t dataset_num_proc = 0;  ///< default: threads

    // What is learned.
    std::string chat_template = "chatml";
    bool train_on_prompt = false;
    std::set<std::string> roles_to_train = {"assistant"};
    TrainOnEos train_on_eos = TrainOnEos::turn;
    bool mask_history = false;
    bool add_bos = true;
    bool add_eos = true;

    // Preferences and rewards.
    std::vector<PreferenceLoss> loss_type = {PreferenceLoss::sigmoid};
    std::vector<double> loss_weights;  ///< settled: one for each loss
    double beta = 0.1;
    double label_smoothing = 0;
    double simpo_gamma = 0.5;
    bool precompute_ref_log_probs = false;  ///< settled: exactly where the loss needs a reference
    std::string ref_model_name_or_path;     ///< empty: what training starts from
    RankingKind reward_loss = RankingKind::pairwise;
    double center_rewards_coefficient = 0;

    // Packing.
    bool packing = true;
    PackStrategy packing_strategy = PackStrategy::bfd;  ///< none exactly when packing is false
    int64_t packing_length = 0;                         ///< default: max_length, twice that for preferences
    int64_t packing_window = 10000;
    bool eval_packing = true;  ///< default: packing
    bool document_mask = true;

    // Batch and length of the run.
    int64_t per_device_train_batch_size = 1;  ///< packs per micro-step
    int64_t per_device_eval_batch_size = 0;   ///< default: per_device_train_batch_size
    int64_t gradient_accumulation_steps = 1;
    double num_train_epochs = 3;  ///< 0: max_steps decides; default with stages dpo and rm: 1
    int64_t max_steps = 0;        ///< 0: num_train_epochs decides
    int64_t head_chunk = 0;       ///< 0 until it is settled: 256 on the CPU, 4096 on a GPU

    // Optimizer and schedule.
    Optimizer optim = Optimizer::adamw;
    DType optim_dtype = DType::f32;  ///< of the moments: f32 or bf16
    double learning_rate = 2e-5;     ///< default with stage dpo: 1e-6
    LrScheduler lr_scheduler_type = LrScheduler::cosine;
    int64_t warmup_steps = 0;
    double warmup_ratio = 0.03;  ///< 0 when warmup_steps decides
    double min_lr = 0;           ///< at most one of min_lr and min_lr_rate is above 0
    double min_lr_rate = 0;
    int64_t wsd_decay_steps = 0;  ///< wsd only; exactly one of these two is above 0
    double wsd_decay_ratio = 0;
    LrDecay wsd_decay_type = LrDecay::cosine;
    double adam_beta1 = 0.9;
    double adam_beta2 = 0.999;  ///< default in pretraining: 0.95
    double adam_epsilon = 1e-8;
    double weight_decay = 0;
    double max_grad_norm = 1;  ///< 0: no clipping
    int64_t seed = 42;
    int64_t data_seed = 42;  ///< default: seed

    // Output.
    std::string output_dir;
    bool overwrite_output_dir = false;
    int64_t logging_steps = 10;
    std::set<Report> report_to = {Report::jsonl, Report::tensorboard};
    When eval_strategy = When::no;  ///< default: epoch where there is something to evaluate on
    int64_t eval_steps = 0;         ///< above 0 exactly when eval_strategy is steps
    bool eval_on_start = false;
    When save_strategy = When::epoch;
    int64_t save_steps = 0;              ///< above 0 exactly when save_strategy is steps
    int64_t save_total_limit = 2;        ///< 0: keep all
    std::string resume_from_checkpoint;  ///< empty: start anew; "auto": the newest whole checkpoint; else a folder

    /// What the rows of its data sets are.
    RowKind rows() const { return stage == Stage::dpo || stage == Stage::rm ? RowKind::preferences : RowKind::texts; }
    bool has_eval_data() const { return !eval_datasets.empty() || val_size > 0; }
};

struct LoadedConfig {
    Config config;
    std::vector<std::string> notices;  ///< one line per alias that was used
};

/// Reads a YAML file and lays `arguments` over it: key=value, --key value, --key=value; model.hidden_size=64,
/// datasets[0].path=x. Throws Exit::config.
LoadedConfig load_config(const std::string& path, const std::vector<std::string>& arguments = {});
/// The same from text; `name` stands for the file in messages.
LoadedConfig parse_config(std::string_view yaml, const std::string& name,
                          const std::vector<std::string>& arguments = {});

/// Makes `device` the config's, in place of auto, and settles what hangs on it: bf16, deterministic, head_chunk. Throws
/// Exit::config where a key asks for what that device cannot do. Reading does this for a config that names its device.
void settle_device(Config& config, Device device);

/// Every key with its value, as YAML in the table's order; parsing it gives the same config back.
std::string resolved_yaml(const Config& config);

/// Every key and its value as text, in the table's order.
std::vector<std::pair<std::string, std::string>> config_values(const Config& config);

/// "learning_rate: 1e-4, now 2e-4", one line per key that differs and decides what is learned, to the bit. Keys that
/// only say where and how to run (threads, output, logging, saving, evaluation, resuming) are left out. So is device:
/// bf16, deterministic and head_chunk tell what differs between devices.
std::vector<std::string> config_changes(const Config& then, const Config& now);

/// All keys as a Markdown page: docs/config.md.
std::string config_reference();
/// All keys as plain text, for --help.
std::string config_help();

/// What the other parts take. `total_steps`: optimizer steps of the whole run.
EncodeOptions encode_options(const Config& config, int64_t vocab_size);
PackSettings train_packing(const Config& config);
PackSettings eval_packing(const Config& config);
LrSchedule lr_schedule(const Config& config, int64_t total_steps);
AdamWSettings adamw_settings(const Config& config);
/// None with finetuning_type full.
std::optional<LoraSettings> lora_settings(const Config& config);

}  // namespace colonnade
