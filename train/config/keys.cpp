#include "train/config/keys.h"

#include "train/config/data_keys.h"
#include "train/config/distillation_keys.h"
#include "train/config/learning_keys.h"
#include "train/config/memory_keys.h"
#include "train/config/output_keys.h"
#include "train/config/packing_keys.h"
#include "train/config/policy_keys.h"
#include "train/config/preference_keys.h"
#include "train/config/reward_keys.h"

namespace colonnade {
namespace {

Key<Config> model_key(const char* doc) {
    Key<Config> key{.name = "model", .doc = doc, .what = "a map"};
    key.read = [](const ConfigNode& node, const std::string& label, Config& config, Reading& reading) {
        if (node.kind == ConfigNode::Kind::map) {
            read_keys(model_keys(), node, label + '.', config.model.emplace(), reading);
            return;
        }
        reading.problems.add(node.where,
                             "{}: expected a map of sizes (a folder goes into model_name_or_path), found {}", label,
                             node.found());
        reading.unreadable.insert(label);
    };
    key.write = [](YAML::Emitter& out, const Config& config) {
        if (config.model)
            write_keys(model_keys(), out, *config.model);
        else
            out << YAML::Null;
    };
    return key;
}

Section model_section() {
    using C = Config;
    return {
        "Model",
        {
            key("model_name_or_path", &C::model_name_or_path,
                "Hugging Face model folder, GGUF file, or name on a hub (org/name, org/name@revision) to start from.")
                .also({"base_model"})
                .default_is("this or model is required"),
            model_key("A shape to start from random weights, instead of a folder. Its keys follow below."),
            key("tokenizer_name_or_path", &C::tokenizer_name_or_path,
                "Folder, file or name of the tokenizer: tokenizer.json, SentencePiece or GGUF. Pre-tokenised rows need "
                "none.")
                .default_is("model_name_or_path"),
            key("stage", &C::stage,
                "pt: pretraining on text; sft: supervised fine-tuning; dpo: direct preference optimisation; rm: "
                "reward model; kto: single answers that are desirable or not; grpo: policy gradients over given "
                "answers with rewards; distill: the probabilities that a teacher gives to tokens. dpo and rm read "
                "preference rows."),
        },
        describe_keys(model_keys(), "model.")};
}
Section lora_section() {
    using C = Config;
    std::vector<std::string> targets = lora_modules();
    targets.insert(targets.begin(), "all");
    return {"LoRA",
            {
                key("finetuning_type", &C::finetuning_type,
                    "full: trains every weight; lora: keeps the model of model_name_or_path frozen and trains low-rank "
                    "adapters beside its linear layers; freeze: trains some layers and keeps the others frozen. The "
                    "keys below are for lora.")
                    .also({"adapter"}),
                key("lora_rank", &C::lora_rank, "Rank of the adapters.", from_to(0, LoraSettings::most_rank))
                    .also({"lora_r"})
                    .default_is("16, or that of adapter_name_or_path"),
                key("lora_alpha", &C::lora_alpha, "Adapters are scaled by lora_alpha / lora_rank.", at_least(0))
                    .default_is("2 * lora_rank, or that of adapter_name_or_path"),
                key("lora_dropout", &C::lora_dropout, "Share of the adapters' input that training drops.",
                    from_to_below(0, 1)),
                key("lora_target", &C::lora_target, "Linear layers that get adapters.",
                    {.choices = targets, .also_spelled = {{"all-linear", "all"}}})
                    .also({"lora_target_modules", "target_modules"})
                    .default_is("all, or those of adapter_name_or_path"),
                key("use_rslora", &C::use_rslora,
                    "Scale by lora_alpha / sqrt(lora_rank) instead (rsLoRA, arXiv 2312.03732)."),
                key("modules_to_save", &C::modules_to_save,
                    "Parameters that are trained whole beside the adapters and saved with them. lm_head needs a model "
                    "with a head of its own, not tied to the embedding; stage rm always trains score.",
                    one_of({"lm_head", "score"}))
                    .also({"additional_target", "lora_modules_to_save"})
                    .default_is("none, score in stage rm, or those of adapter_name_or_path"),
                key("adapter_name_or_path", &C::adapter_name_or_path,
                    "PEFT folder, or name, of adapters to continue training; its rank, alpha and targets apply.")
                    .also({"lora_model_dir"})
                    .default_is("fresh adapters"),
                key("base_quantization", &C::base_quantization,
                    "How the weights of the base's linear layers are kept: none: in bf16; fp8: in 8 bits, with a scale "
                    "for each 128 x 128 block; nf4: in 4 bits, as QLoRA does. They are widened layer by layer to be "
                    "used; with compute: fp8 products take codes of fp8 as they are."),
                key("export_merged", &C::export_merged,
                    "At the end also write the model with its adapters merged in, to merged in output_dir.")
                    .only_how_to_run(),
            }};
}
Section machine_section() {
    using C = Config;
    return {
        "Machine",
        {
            key("device", &C::device, "Where to compute; auto: use a GPU if available, otherwise the CPU.")
                .only_how_to_run(),
            key("device_index", &C::device_index, "Index of the GPU to use, counted from 0.", from_to(0, 1023))
                .per_machine(),
            key("threads", &C::threads, "CPU threads; 0: one per core. Results do not depend on it.", from_to(0, 4096))
                .per_machine(),
            key("bf16", &C::bf16,
                "bf16 weights, activations and matrix products; sums, weight gradients and the optimizer's master "
                "weights stay fp32. A GPU always computes this way; the CPU computes in fp32.")
                .default_is("auto: true on a GPU, false on the CPU"),
            key("compute", &C::compute,
                "fp8: the linear layers of blocks multiply in 8 bits (e4m3), forward and for the gradients of their "
                "inputs, with a scale for each 128 numbers of a token and each 128 x 128 of a weight; gradients of "
                "weights, the head, attention and adapters stay in bf16. Needs a Hopper GPU; the CPU rounds in the "
                "same way."),
            key("deterministic", &C::deterministic,
                "The same bits in every run. The CPU is always deterministic. On GPUs this switches attention's "
                "backward pass, and NCCL, to slower deterministic algorithms; everything else is deterministic anyway.")
                .default_is("true on the CPU, false on a GPU"),
            key("recompute_check_steps", &C::recompute_check_steps,
                "Steps between two checks of the device: a micro-step is computed twice, and a difference ends the run "
                "with exit code 5. The gradients of a GPU are compared only if deterministic. 0: never.",
                from_to(0, 1e9))
                .only_how_to_run(),
        }};
}
Section ranks_section() {
    using C = Config;
    return {
        "Several ranks (mpirun)",
        {
            key("zero_stage", &C::zero_stage,
                "0: every rank keeps the whole optimizer state; 1: every rank keeps a share of it, updates that share "
                "of the weights and sends it to the others (ZeRO-1). Results stay the same; on the CPU, to the bit.",
                from_to(0, 1))
                .only_how_to_run(),
            key("grad_sync_dtype", &C::grad_sync_dtype,
                "Type of the gradients sent between ranks; gradients are summed, never averaged. bfloat16 halves the "
                "traffic and rounds."),
            key("ddp_timeout", &C::ddp_timeout,
                "Seconds after which a rank that hangs or whose machine is lost ends all ranks with exit code 5. A "
                "rank that dies ends them at once.",
                from_to(1, 1e9))
                .only_how_to_run(),
            key("param_checksum_steps", &C::param_checksum_steps,
                "Steps between two comparisons of the ranks' weights, by checksum; 0: never.", from_to(0, 1e9))
                .only_how_to_run(),
        }};
}
Section run_section() {
    using C = Config;
    return {
        "Batch and length of the run",
        {
            key("per_device_train_batch_size", &C::per_device_train_batch_size, "Packed rows per micro-step.",
                from_to(1, 1 << 20))
                .also({"micro_batch_size", "batch_size"}),
            key("per_device_eval_batch_size", &C::per_device_eval_batch_size, "Packed rows per evaluation step.",
                from_to(1, 1 << 20))
                .also({"eval_batch_size"})
                .default_is("per_device_train_batch_size")
                .only_how_to_run(),
            key("gradient_accumulation_steps", &C::gradient_accumulation_steps,
                "Micro-steps per optimizer step. The loss is averaged over all trained tokens (or pairs) of the "
                "optimizer step.",
                from_to(1, 1 << 20)),
            key("num_train_epochs", &C::num_train_epochs, "Passes over the data.", from_to(0, 1e9))
                .also({"num_epochs", "epochs"})
                .default_is("3; 1 in stages dpo, rm, kto and grpo; 0 if max_steps is given"),
            key("max_steps", &C::max_steps, "Number of optimizer steps, instead of num_train_epochs.", from_to(0, 1e9)),
            key("head_chunk", &C::head_chunk,
                "Number of tokens whose logits are computed at a time; each takes 4 bytes (bf16: 2) per vocabulary "
                "entry. 0: the default.",
                from_to(0, 1 << 20))
                .default_is("256 on the CPU, 4096 on a GPU"),
        }};
}
Section optimizer_section() {
    using C = Config;
    return {
        "Optimizer and schedule",
        {
            key("optim", &C::optim,
                "Optimizer. adamw: AdamW with decoupled weight decay, none on norms and biases; adamw_8bit: the same "
                "with moments of 8 bits, scaled in blocks of 64 and rounded stochastically: 2.1 instead of 8 bytes per "
                "parameter; muon: Muon for the matrices of the layers, which keeps 4 bytes per parameter, with updates "
                "of AdamW's size, so that its learning rates fit; AdamW for embedding, head, norms and biases.")
                .also({"optimizer"}),
            key("optim_dtype", &C::optim_dtype,
                "Type of the two moments of adamw. bfloat16, for GPUs only, uses 4 instead of 8 bytes per parameter, "
                "with "
                "unbiased stochastic rounding."),
            // Moves memory only: every update has the same bits.
            key("offload_optimizer", &C::offload_optimizer,
                "The share of the optimizer's state that a GPU run keeps in host memory: moments and the lower halves "
                "of the weights, 10 bytes per parameter with adamw in float32, 6 with optim_dtype bfloat16. Every "
                "update copies it to the GPU and back, a piece at a time, and takes that much longer. Results stay "
                "the same.")
                .only_how_to_run(),
            key("learning_rate", &C::learning_rate, "Learning rate after warm-up.", above(0))
                .also({"lr"})
                .default_is(
                    "2e-05; 0.0001 with finetuning_type lora; 1e-06 in stages dpo, kto and grpo; 5e-06 with lora too"),
            key("lr_scheduler_type", &C::lr_scheduler_type, "Learning-rate schedule.").also({"lr_scheduler"}),
            key("warmup_steps", &C::warmup_steps, "Steps of linear warm-up.", from_to(0, 1e9))
                .also({"num_warmup_steps"}),
            key("warmup_ratio", &C::warmup_ratio, "Warm-up as a share of all steps.", from_to(0, 1))
                .default_is("0.03; 0 if warmup_steps is given or the schedule is constant"),
            key("min_lr", &C::min_lr, "Final learning rate of cosine_with_min_lr, polynomial and wsd.", at_least(0))
                .default_is("0; 1e-07 with polynomial"),
            key("min_lr_rate", &C::min_lr_rate, "Final learning rate as a share of learning_rate.", from_to(0, 1))
                .also({"min_lr_ratio"}),
            key("lr_cycles", &C::lr_cycles, "Cycles of cosine_with_restarts.", from_to(1, 1e6)),
            key("lr_power", &C::lr_power, "Power of polynomial.", above(0)),
            key("lr_timescale", &C::lr_timescale,
                "inverse_sqrt falls to the half when three times this number of steps is done; 0: the default.",
                from_to(0, 1e9))
                .default_is("warmup_steps, or 10000 without a warm-up"),
            key("wsd_decay_steps", &C::wsd_decay_steps, "Steps of wsd's final decay.", from_to(0, 1e9))
                .also({"num_decay_steps"}),
            key("wsd_decay_ratio", &C::wsd_decay_ratio, "wsd's final decay as a share of all steps.", from_to(0, 1))
                .default_is("0.1 with wsd, unless wsd_decay_steps is given"),
            key("wsd_decay_type", &C::wsd_decay_type, "Shape of the wsd decay."),
            key("muon_momentum", &C::muon_momentum, "Momentum of optim muon.", from_to_below(0, 1)),
            key("adam_beta1", &C::adam_beta1, "Decay rate of the first moment.", from_to_below(0, 1)),
            key("adam_beta2", &C::adam_beta2, "Decay rate of the second moment.", from_to_below(0, 1))
                .default_is("0.999; 0.95 in stage pt"),
            key("adam_epsilon", &C::adam_epsilon, "Added to the square root of the second moment.", above(0)),
            key("weight_decay", &C::weight_decay, "Decoupled weight decay.", at_least(0)),
            key("max_grad_norm", &C::max_grad_norm, "Gradients are clipped to this norm; 0: no clipping.", at_least(0))
                .also({"clip_grad_norm"}),
            key("loss_spike", &C::loss_spike,
                "What to do about a step whose loss or gradient norm is far above those of the steps before. warn: "
                "print and log it with its rows; skip: also leave its update out; stop: save the state before it and "
                "end the run; off: nothing."),
            key("loss_spike_z", &C::loss_spike_z,
                "How far above: the distance from the median, in standard deviations (1.4826 times the median absolute "
                "deviation).",
                above(0)),
            key("loss_spike_window", &C::loss_spike_window,
                "Number of steps before it that are compared; nothing is judged until half of them are done.",
                from_to(8, 4096)),
            key("neftune_noise_alpha", &C::neftune_noise_alpha,
                "Stages pt and sft: training adds uniform noise of at most neftune_noise_alpha / sqrt(tokens of the "
                "sample * hidden_size) to embeddings (NEFTune, arXiv 2310.05914); 5 is usual, 0 is none.",
                at_least(0)),
            key("use_dft_loss", &C::use_dft_loss,
                "Stages pt and sft: each token's loss is multiplied by its probability, held constant (DFT, arXiv "
                "2508.05629). Evaluation reports the loss without it."),
            key("seed", &C::seed,
                "Seed of the initial weights, of the stochastic rounding of bfloat16 and 8-bit moments, and of noise.",
                at_least(0)),
            key("data_seed", &C::data_seed, "Seed of the order of the data.", at_least(0)).default_is("seed"),
        }};
}
std::vector<Key<Config>> config_keys() {
    std::vector<Key<Config>> keys;
    for (Section& section : config_sections()) keys.insert(keys.end(), section.keys.begin(), section.keys.end());
    return keys;
}

}  // namespace

std::vector<Section> config_sections() {
    return {model_section(),     lora_section(),   freeze_section(),       machine_section(), memory_section(),
            ranks_section(),     data_section(),   tokens_section(),       labels_section(),  preference_section(),
            policy_section(),    reward_section(), distillation_section(), packing_section(), run_section(),
            optimizer_section(), output_section()};
}

std::vector<Key<ModelShape>> model_keys() {
    using M = ModelShape;
    const Limits size = from_to(1, 1 << 24);
    return {
        key("architecture", &M::architecture, "Model family."),
        key("hidden_size", &M::hidden_size, "Width of the residual stream.", size).default_is("required"),
        key("intermediate_size", &M::intermediate_size, "Width of the MLP.", size).default_is("required"),
        key("num_hidden_layers", &M::num_hidden_layers, "Number of layers.", from_to(1, 4096)).default_is("required"),
        key("num_attention_heads", &M::num_attention_heads, "Number of query heads.", from_to(1, 4096))
            .default_is("required"),
        key("num_key_value_heads", &M::num_key_value_heads, "Number of key/value heads.", from_to(1, 4096))
            .default_is("num_attention_heads"),
        key("head_dim", &M::head_dim, "Width of a head; even.", from_to(2, 256))
            .default_is("hidden_size / num_attention_heads"),
        key("vocab_size", &M::vocab_size, "Rows of the embedding; 0: the size of the tokenizer's vocabulary.",
            from_to(0, 1 << 24)),
        key("max_position_embeddings", &M::max_position_embeddings, "Longest sample that the model supports.",
            from_to(1, 1 << 30)),
        key("rope_theta", &M::rope_theta, "Base of the rotary embedding.", above(1)),
        key("rms_norm_eps", &M::rms_norm_eps, "Added to the mean square in RMSNorm.",
            {.low = 0, .high = 1, .low_excluded = true, .high_excluded = true}),
        key("tie_word_embeddings", &M::tie_word_embeddings, "The head shares the embedding's weights."),
        key("sliding_window", &M::sliding_window,
            "Number of tokens that a token sees, itself included; 0: all before it. llama has none.",
            from_to(0, 1 << 30)),
        key("initializer_range", &M::initializer_range, "Standard deviation of initial weights.", above(0)),
    };
}

std::string canonical_key(const std::string& name) {
    static const std::vector<Key<Config>> keys = config_keys();
    const Key<Config>* key = find_key(keys, name);
    return key ? key->name : name;
}

bool is_config_key(const std::string& name) {
    static const std::vector<Key<Config>> keys = config_keys();
    return find_key(keys, name) != nullptr;
}

std::string nearest_key(const std::string& name) {
    static const std::vector<Key<Config>> keys = config_keys();
    return nearest_key(keys, name);
}

std::string first_sentence(const std::string& doc) {
    const size_t end = doc.find(". ");
    return end == doc.npos ? doc : doc.substr(0, end + 1);
}

void read_config(const ConfigNode& root, Config& config, Reading& reading) {
    read_keys(config_keys(), root, "", config, reading);
}

}  // namespace colonnade
