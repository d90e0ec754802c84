// What is refused in a config: each error has its place, what was found and what was expected.

#include "tests/support/config_text.h"

namespace colonnade {
namespace {

TEST(ConfigErrors, RefusesUnknownKeysAndNamesTheNearest) {
    expect_problems({
        {"learning_rat: 1", "c.yaml:4:1: unknown key 'learning_rat' (did you mean 'learning_rate'?)"},
        {"max_lenght: 1", "c.yaml:4:1: unknown key 'max_lenght' (did you mean 'max_length'?)"},
        {"\n  \nwarmup_step: 1", "c.yaml:6:1: unknown key 'warmup_step' (did you mean 'warmup_steps'?)"},
        {"frobnicate: 1", "c.yaml:4:1: unknown key 'frobnicate'"},
        {"eval_datasets: [{path: b, tipe: x}]", "c.yaml:4:27: unknown key 'tipe' (did you mean 'type'?)"},
    });
}

TEST(ConfigErrors, RefusesWhatIsGivenTwice) {
    expect_problems({
        {"seed: 1\nseed: 1", "c.yaml:5:1: seed is given twice, first at c.yaml:4:1"},
        {"max_length: 9\ncutoff_len: 9", "c.yaml:5:1: max_length is given twice, first at c.yaml:4:1"},
        {"output_dir: x", "c.yaml:4:1: output_dir is given twice, first at c.yaml:3:1"},
        {"eval_datasets: [{path: b, path: c}]",
         "c.yaml:4:27: eval_datasets[0].path is given twice, first at c.yaml:4:18"},
        {"eval_datasets: [{path: b, columns: {text: a, text: b}}]",
         "c.yaml:4:36: eval_datasets[0].columns: expected a map of names, each given once, found {text: a, text: b}"},
    });
}

TEST(ConfigErrors, ComparingEvaluationsNeedsThem) {
    expect_problems({
        {"load_best_model_at_end: true",
         "c.yaml:4:25: load_best_model_at_end compares evaluations: give eval_datasets or val_size"},
        {"early_stopping_patience: 2\nval_size: 5\neval_strategy: no",
         "c.yaml: 2 problems\n"
         "  c.yaml:6:16: load_best_model_at_end compares evaluations: set eval_strategy to steps or epoch\n"
         "  c.yaml:4:26: early_stopping_patience compares evaluations: set eval_strategy to steps or epoch"},
        {"save_strategy: best", "c.yaml:4:16: save_strategy compares evaluations: give eval_datasets or val_size"},
        {"load_best_model_at_end: true\nval_size: 5\nsave_strategy: no",
         "c.yaml:4:25: load_best_model_at_end takes the best checkpoint, but save_strategy no writes none: set "
         "save_strategy to best (the fewest), epoch or steps"},
        {"val_size: 5\neval_strategy: best",
         "c.yaml:5:16: eval_strategy: expected one of no, steps, epoch, found 'best', which is for save_strategy"},
    });
}

TEST(ConfigErrors, ScalarsAreStrict) {
    const std::string length = "c.yaml:4:13: max_length: expected an integer >= 2 and <= 16777216, found ";
    expect_problems({
        {"max_length: 1e3", length + "'1e3'"},
        {"max_length: 1_000", length + "'1_000'"},
        {"max_length: 0x10", length + "'0x10'"},
        {"max_length: 12.0", length + "'12.0'"},
        {"max_length: +12", length + "'+12'"},
        {"max_length: \"12\"", length + "\"12\""},
        {"max_length: 1", length + "'1'"},
        {"max_length: 99999999999999999999", length + "'99999999999999999999'"},
        {"max_length: [12]", length + "[12]"},
        {"max_length: {a: 12}", length + "{a: 12}"},
    });
    for (const char* number : {"nan", ".nan", "inf", "-.inf", "1e999", "0", "-1", "1,5", "1e-4x", "'1'", "true"})
        EXPECT_NE(problems(minimal + "learning_rate: " + number).find("learning_rate: expected a number > 0, found"),
                  std::string::npos);
    for (const char* boolean : {"y", "oui", "tRUE", "1", "'true'", "[true]"})
        EXPECT_NE(problems(minimal + "packing: " + boolean).find("packing: expected true or false, found"),
                  std::string::npos);
}

TEST(ConfigErrors, RangesAndChoicesAreChecked) {
    expect_problems({
        {"adam_beta1: 1", "c.yaml:4:13: adam_beta1: expected a number >= 0 and < 1, found '1'"},
        {"lr_scheduler_type: cosin",
         "c.yaml:4:20: lr_scheduler_type: expected one of constant, constant_with_warmup, linear, cosine, "
         "cosine_with_min_lr, cosine_with_restarts, polynomial, inverse_sqrt, wsd, found 'cosin'"},
        {"report_to: [jsonl, paper]",
         "c.yaml:4:12: report_to: expected a list of jsonl, tensorboard, csv, wandb, trackio, mlflow; or none, found "
         "[jsonl, paper]"},
        {"roles_to_train: [bot]",
         "c.yaml:4:17: roles_to_train: expected a list of system, user, assistant, tool; or none, found [bot]"},
        {"eval_datasets: b.jsonl",
         "c.yaml:4:16: eval_datasets: expected a list such as [{path: train.jsonl}], found 'b.jsonl'"},
        {"eval_datasets: [b.jsonl]",
         "c.yaml:4:17: eval_datasets[0]: expected a map such as {path: train.jsonl}, found 'b.jsonl'"},
        {"eval_datasets: [{type: text}]", "c.yaml:4:17: eval_datasets[0]: path is missing"},
        {"eval_datasets: [{path: b, type: chat}]",
         "c.yaml:4:33: eval_datasets[0].type: expected one of auto, messages, prompt_completion, alpaca, sharegpt, "
         "text, tokens, scored, preference, turns, steps, ranked, rollouts, prompt_tokens, found 'chat'"},
        {"device: gpu", "c.yaml:4:9: device: expected one of auto, cpu, cuda, found 'gpu'"},
        {"device_index: -1", "c.yaml:4:15: device_index: expected an integer >= 0 and <= 1023, found '-1'"},
        {"device_index: auto", "c.yaml:4:15: device_index: expected an integer >= 0 and <= 1023, found 'auto'"},
        {"bf16: maybe", "c.yaml:4:7: bf16: expected one of auto, true, false, found 'maybe'"},
        {"bf16: [true]", "c.yaml:4:7: bf16: expected one of auto, true, false, found [true]"},
        {"optim_dtype: float16", "c.yaml:4:14: optim_dtype: expected one of float32, bfloat16, found 'float16'"},
        {"gradient_checkpointing: full",
         "c.yaml:4:25: gradient_checkpointing: expected one of none, selective, block, found 'full'"},
        {"deterministic: auto", "c.yaml:4:16: deterministic: expected true or false, found 'auto'"},
        {"head_chunk: -1", "c.yaml:4:13: head_chunk: expected an integer >= 0 and <= 1048576, found '-1'"},
        {"head_chunk: 1048577", "c.yaml:4:13: head_chunk: expected an integer >= 0 and <= 1048576, found '1048577'"},
        {"model: models/m",
         "c.yaml:4:8: model: expected a map of sizes (a folder goes into model_name_or_path), found 'models/m'"},
    });
}

TEST(ConfigErrors, ValuesThatAreNotSupportedAreNamedAsSuch) {
    expect_problems({
        {"eval_datasets: [{path: b, weight: 0}]",
         "c.yaml:4:35: eval_datasets[0].weight: expected a number > 0 and <= 1000, found '0'"},
        {"eval_datasets: [{path: b, keep: worst}]",
         "c.yaml:4:33: eval_datasets[0].keep: expected best, or above and a number, as in above 0.5, found 'worst'"},
        {"eval_datasets: [{path: b, split: 'train[5'}]",
         "c.yaml:4:34: eval_datasets[0].split: expected a split such as train, test[:1000] or train[10%:], found "
         "\"train[5\""},
        {"eval_datasets: [{path: b, max_samples: -1}]",
         "c.yaml:4:40: eval_datasets[0].max_samples: expected an integer >= 0 and <= 1000000000000000, found '-1'"},
    });
    EXPECT_EQ(resolved_yaml(read(minimal + "fp16: false\nfinetuning_type: full\n")), resolved_yaml(read(minimal)));
}

TEST(ConfigErrors, RulesBetweenKeys) {
    expect_problems({
        {"warmup_steps: 5\nwarmup_ratio: 0.1", "c.yaml:5:15: warmup_steps and warmup_ratio exclude each other"},
        {"num_train_epochs: 0", "c.yaml:4:19: num_train_epochs or max_steps must be above 0"},
        {"val_size: 0.1\neval_datasets: [{path: b}]", "c.yaml:4:11: val_size and eval_datasets exclude each other"},
        {"val_size: 1.5", "c.yaml:4:11: val_size 1.5: expected a share below 1 or a whole number of samples"},
        {"packing_length: 1024", "c.yaml:4:17: packing_length 1024 is shorter than max_length 2048"},
        {"packing_length: 16777216\nper_device_train_batch_size: 65\nper_device_eval_batch_size: 64",
         "c.yaml:5:30: per_device_train_batch_size 65 with packing_length 16777216: expected at most 1073741824 tokens "
         "at a time"},
        {"packing: false\npacking_strategy: bfd", "c.yaml:5:19: packing_strategy bfd contradicts packing: false"},
        {"packing: true\npacking_strategy: none", "c.yaml:5:19: packing_strategy none contradicts packing: true"},
        {"document_mask: false",
         "c.yaml:4:16: document_mask: false is for stage pt: the samples of stage sft must not see each other"},
        {"stage: dpo\ntrain_on_prompt: true",
         "c.yaml:5:18: train_on_prompt: true contradicts stage dpo: only answers are compared"},
        {"train_on_eos: all\nstage: rm",
         "c.yaml:4:15: train_on_eos: all contradicts stage rm: only answers are compared, the prompt's end tokens are "
         "not"},
        {"history: per_turn\nstage: dpo",
         "c.yaml:4:10: history: per_turn contradicts stage dpo: only the last answers are compared; use auto"},
        {"train_on_prompt: true\nhistory: per_turn",
         "c.yaml:5:10: history: per_turn contradicts train_on_prompt: true: a prompt is not generated; use auto"},
        {"device: cpu\nbf16: true", "c.yaml:5:7: bf16: true needs a GPU, the CPU computes in fp32; use auto"},
        {"bf16: false\ndevice: cuda", "c.yaml:4:7: bf16: false needs device: cpu, a GPU computes in bf16; use auto"},
        {"device: cpu\noptim_dtype: bfloat16",
         "c.yaml:5:14: optim_dtype bfloat16 needs a GPU, the CPU keeps moments in float32"},
        {"optim: adamw_8bit\noptim_dtype: bfloat16\ndevice: cuda",
         "c.yaml:5:14: optim_dtype is for optim adamw; adamw_8bit has its own types"},
        {"optim: muon\nzero_stage: 1", "c.yaml:5:13: optim muon needs whole matrices on every rank: zero_stage 0"},
        {"optim: muon\nfinetuning_type: lora",
         "c.yaml:4:8: optim muon is for the matrices of a model, not for adapters: use adamw with finetuning_type "
         "lora"},
        {"optim: muon\noffload_optimizer: true",
         "c.yaml:5:20: optim muon needs its state on the GPU: leave out offload_optimizer, or use adamw"},
        {"optim: muon\noffload_weights: 3",
         "c.yaml:5:18: optim muon needs all weights on the GPU: leave out offload_weights, or use adamw"},
        {"val_size: 0.1\neval_strategy: epoch\neval_table_size: 3\noffload_weights: true",
         "c.yaml:6:18: eval_table_size answers prompts with weights that are on the GPU: leave out one of "
         "eval_table_size and offload_weights"},
        {"offload_weights: most",
         "c.yaml:4:18: offload_weights: expected true, false or a number of blocks, found 'most'"},
        {"offload_optimizer: 1.5",
         "c.yaml:4:20: offload_optimizer: expected true, false, or a number from 0 to 1, found '1.5'"},
        {"gpu_memory: 24", "c.yaml:4:13: gpu_memory: expected a size such as 24GiB or 48GB, found '24'"},
        {"host_memory: -1GiB", "c.yaml:4:14: host_memory: expected a size such as 24GiB or 48GB, found '-1GiB'"},
        {"gpu_memory: 1024MiB",
         "c.yaml:4:13: gpu_memory: expected more than 1GiB, which CUDA and its libraries take, found 1GiB"},
        {"fit: maybe", "c.yaml:4:6: fit: expected one of off, auto, found 'maybe'"},
        {"muon_momentum: 0.9", "c.yaml:4:16: muon_momentum is for optim muon"},
        {"stage: dpo\nneftune_noise_alpha: 5",
         "c.yaml:5:22: neftune_noise_alpha is for stages pt and sft: answers of stage dpo share their prompt, whose "
         "noise "
         "would be that of one of them"},
        {"freeze_trainable_layers: 2",
         "c.yaml:4:26: freeze_trainable_layers has no effect without finetuning_type: "
         "freeze"},
        {"finetuning_type: freeze\nexport_checkpoints: true",
         "c.yaml:5:21: export_checkpoints: with finetuning_type freeze a checkpoint holds only what is trained; "
         "remove the key; colonnade export makes a model of any checkpoint"},
        {"finetuning_type: freeze\nunfrozen_parameters: lm_head\nfreeze_trainable_layers: 2",
         "c.yaml:5:22: unfrozen_parameters says what is trained instead of freeze_trainable_layers, "
         "freeze_trainable_modules and freeze_extra_modules: give one or the other"},
        {"special_tokens: {sep_token: x}",
         "c.yaml:4:17: special_tokens: sep_token 'x': expected bos_token, eos_token, pad_token or unk_token with a "
         "token"},
        {"lr_scheduler_type: constant\nwarmup_steps: 3",
         "c.yaml:5:15: lr_scheduler_type constant has no warm-up; use constant_with_warmup"},
        {"min_lr: 1e-6",
         "c.yaml:4:9: lr_scheduler_type cosine takes no min_lr; cosine_with_min_lr, polynomial and wsd do"},
        {"lr_power: 2", "c.yaml:4:11: lr_power is for lr_scheduler_type polynomial"},
        {"lr_scheduler_type: wsd\nlr_timescale: 5", "c.yaml:5:15: lr_timescale is for lr_scheduler_type inverse_sqrt"},
        {"lr_scheduler_type: cosine_with_min_lr",
         "c.yaml:4:20: lr_scheduler_type cosine_with_min_lr needs min_lr or min_lr_rate above 0"},
        {"lr_scheduler_type: wsd\nmin_lr: 1e-6\nmin_lr_rate: 0.1",
         "c.yaml:6:14: min_lr and min_lr_rate exclude each other"},
        {"lr_scheduler_type: wsd\nmin_lr: 1", "c.yaml:5:9: min_lr 1 is above learning_rate 2e-05"},
        {"lr_scheduler_type: wsd\nwsd_decay_steps: 5\nwsd_decay_ratio: 0.1",
         "c.yaml:6:18: wsd needs one of wsd_decay_steps and wsd_decay_ratio above 0"},
        {"wsd_decay_ratio: 0.1", "c.yaml:4:18: lr_scheduler_type cosine takes no wsd_decay_*"},
        {"lr_scheduler_type: wsd\nwsd_decay_ratio: 0.9\nwarmup_ratio: 0.2",
         "c.yaml:5:18: warmup_ratio 0.2 + wsd_decay_ratio 0.9 is more than 1"},
        {"warmup_steps: 20\nmax_steps: 10",
         "c.yaml:4:15: warmup_steps 20 + wsd_decay_steps 0 is more than max_steps 10"},
        {"eval_strategy: epoch", "c.yaml:4:16: there is nothing to evaluate on: give eval_datasets or val_size"},
        {"eval_on_start: true", "c.yaml:4:16: there is nothing to evaluate on: give eval_datasets or val_size"},
        {"val_size: 9\neval_strategy: steps", "c.yaml:5:16: eval_strategy steps needs eval_steps above 0"},
        {"overwrite_output_dir: true\nresume_from_checkpoint: auto",
         "c.yaml:4:23: overwrite_output_dir and resume_from_checkpoint exclude each other"},
        {"model: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2}",
         "c.yaml:4:8: model starts from random weights, model_name_or_path from a folder: give only one of them"},
    });
}

TEST(ConfigErrors, RulesOfPreferences) {
    const std::string losses =
        "one or a list of sigmoid, robust, hinge, ipo, sigmoid_norm, exo_pair, nca_pair, sppo_hard, apo_zero, "
        "apo_down, simpo, orpo, sft; in stage kto one of kto, apo_zero_unpaired; in stage grpo one of dapo, grpo, "
        "dr_grpo, "
        "luspo, cispo, sapo, rloo";
    expect_problems({
        {"beta: 0.2", "c.yaml:4:7: beta is for stages dpo, kto, grpo and distill, this is stage sft"},
        {"stage: rm\nloss_type: ipo", "c.yaml:5:12: loss_type is for stage dpo, this is stage rm: set stage: dpo"},
        {"precompute_ref_log_probs: true",
         "c.yaml:4:27: precompute_ref_log_probs is for stages dpo, kto and grpo, this is stage sft"},
        {"stage: dpo\nreward_loss: plackett_luce",
         "c.yaml:5:14: reward_loss is for stage rm, this is stage dpo: set stage: rm"},
        {"stage: dpo\ncenter_rewards_coefficient: 0.01",
         "c.yaml:5:29: center_rewards_coefficient is for stage rm, this is stage dpo: set stage: rm"},
        {"stage: rm\nreward_loss: pair",
         "c.yaml:5:14: reward_loss: expected one of pairwise, plackett_luce, found 'pair'"},
        {"stage: rm\ncenter_rewards_coefficient: -1",
         "c.yaml:5:29: center_rewards_coefficient: expected a number >= 0, found '-1'"},
        {"stage: dpo\nloss_type: sigmod",
         "c.yaml:5:12: loss_type: expected " + losses + ", found 'sigmod' (did you mean 'sigmoid'?)"},
        {"stage: dpo\nloss_type: [sigmoid, kto]",
         "c.yaml:5:12: loss_type is for stage kto, this is stage dpo: set stage: kto"},
        {"stage: kto\nloss_type: [kto, apo_zero_unpaired]",
         "c.yaml:5:18: loss_type: stage kto has one loss, found 'apo_zero_unpaired' as well"},
        {"stage: kto\nloss_type: sigmoid", "c.yaml:5:12: loss_type: stage kto expects one of kto, apo_zero_unpaired"},
        {"stage: kto\nloss_weights: [2]",
         "c.yaml:5:15: loss_weights is for the losses of stage dpo; stage kto has one"},
        {"stage: kto\ndesirable_weight: 0", "c.yaml:5:19: desirable_weight: expected a number > 0, found '0'"},
        {"stage: dpo\nkto_rejected_weight: 2",
         "c.yaml:5:22: undesirable_weight is for stage kto, this is stage dpo: set stage: kto"},
        {"stage: dpo\nloss_type: []", "c.yaml:5:12: loss_type: expected " + losses + ", found []"},
        {"stage: dpo\nloss_type: [sigmoid, sigmoid]", "c.yaml:5:12: loss_type names a loss twice"},
        {"stage: dpo\nloss_type: sft",
         "c.yaml:5:12: loss_type sft alone compares nothing: use stage sft on the chosen answers"},
        {"stage: dpo\nloss_type: [orpo, sft]",
         "c.yaml:5:12: loss_type orpo already contains the sft term; beta weighs it"},
        {"stage: dpo\nloss_type: [hinge, simpo]",
         "c.yaml:5:12: loss_type mixes hinge, which needs a reference model, with simpo, which needs none"},
        {"stage: dpo\nloss_type: [sigmoid, sft]\nloss_weights: [1]",
         "c.yaml:6:15: loss_weights has 1 numbers for the 2 losses of loss_type"},
        {"stage: dpo\nloss_weights: [0]", "c.yaml:5:15: loss_weights: expected a list of numbers > 0, found [0]"},
        {"stage: dpo\nloss_weights: 1", "c.yaml:5:15: loss_weights: expected a list of numbers > 0, found '1'"},
        {"stage: dpo\nbeta: 0", "c.yaml:5:7: beta: expected a number > 0 in stage dpo, found 0"},
        {"stage: dpo\nlabel_smoothing: 0.5",
         "c.yaml:5:18: label_smoothing: expected a number >= 0 and < 0.5, found '0.5'"},
        {"stage: dpo\nloss_type: ipo\nlabel_smoothing: 0.1",
         "c.yaml:6:18: label_smoothing is for loss_type sigmoid, robust and exo_pair"},
        {"stage: dpo\nloss_type: exo_pair",
         "c.yaml:5:12: loss_type exo_pair needs label_smoothing above 0, such as 0.001"},
        {"stage: dpo\nsimpo_gamma: 1", "c.yaml:5:14: simpo_gamma is for loss_type simpo"},
        {"stage: dpo\nloss_type: simpo\nref_model: other", "c.yaml:6:12: loss_type simpo uses no reference model"},
        {"stage: dpo\nloss_type: orpo\nprecompute_ref_log_probs: true",
         "c.yaml:6:27: loss_type orpo uses no reference model"},
        {"stage: dpo\nprecompute_ref_log_probs: false",
         "c.yaml:5:27: precompute_ref_log_probs: false would keep a second model in memory; use true"},
    });
}

TEST(ConfigErrors, RulesOfPolicies) {
    const std::string grpo = "stage: grpo\n";
    expect_problems({
        {"loss_type: dapo", "c.yaml:4:12: loss_type dapo is for stage grpo, this is stage sft: set stage: grpo"},
        {"old_logps: start", "c.yaml:4:12: old_logps is for stage grpo, this is stage sft: set stage: grpo"},
        {"temperature: 0.7", "c.yaml:4:14: temperature is for stages grpo and distill, this is stage sft"},
        {grpo + "loss_type: ipo",
         "c.yaml:5:12: loss_type: expected one of dapo, grpo, dr_grpo, luspo, cispo, sapo, rloo in stage grpo, found a "
         "loss of stage dpo"},
        {grpo + "loss_type: bnpo",
         "c.yaml:5:12: loss_type: 'bnpo' is not supported: it divides by the tokens of a micro-batch, so that it "
         "depends "
         "on how a step is split; use dapo, which divides by those of the whole step"},
        {grpo + "loss_type: dr_grpo",
         "c.yaml:5:12: loss_type dr_grpo divides by max_completion_length: give the one with which the answers were "
         "drawn"},
        {grpo + "loss_type: rloo\nbeta: 0.05",
         "c.yaml:6:7: loss_type rloo has its KL divergence in the rewards: subtract it there, and give beta: 0"},
        {grpo + "loss_type: rloo\nimportance_sampling_level: token",
         "c.yaml:6:28: importance_sampling_level token: loss_type rloo has sequence_sum only"},
        {grpo + "loss_type: cispo\nimportance_sampling_level: sequence",
         "c.yaml:6:28: importance_sampling_level sequence: loss_type cispo has token only"},
        {grpo + "importance_sampling_level: sequence_sum",
         "c.yaml:5:28: importance_sampling_level sequence_sum: loss_type dapo has token and sequence"},
        {grpo + "loss_type: sapo\ndelta: 2", "c.yaml:6:8: delta is for losses that clip, sapo does not"},
        {grpo + "delta: 1.1",
         "c.yaml:5:8: delta 1.1: expected more than 1 + epsilon_high = 1.2, or it would take the place of that bound"},
        {grpo + "sapo_temperature_neg: 2", "c.yaml:5:23: sapo_temperature_* are for loss_type sapo"},
        {grpo + "ref_model_name_or_path: m", "c.yaml:5:25: stage grpo with beta 0 uses no reference model"},
        {grpo + "beta: 0.1\nprecompute_ref_log_probs: false",
         "c.yaml:6:27: precompute_ref_log_probs: false would keep a second model in memory; use true"},
        {grpo + "temperature: 0", "c.yaml:5:14: temperature: expected a number > 0, found '0'"},
        {grpo + "vllm_importance_sampling_clip_min: 3",
         "c.yaml:5:36: vllm_importance_sampling_clip_min 3 is not below vllm_importance_sampling_clip_max 3"},
    });
}

TEST(ConfigErrors, RulesOfAModelShape) {
    const std::string sizes = "hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2";
    const std::vector<Bad> cases = {
        // The place of the problem is marked with an @.
        {"model: @{" + sizes, "model.num_attention_heads is missing"},
        {"model: {" + sizes + ", num_attention_heads: 4, num_key_value_heads: @0",
         "model.num_key_value_heads: expected an integer >= 1 and <= 4096, found '0'"},
        {"model: {" + sizes + ", num_attention_heads: 4, num_key_value_heads: @3",
         "model.num_attention_heads 4 is not a multiple of num_key_value_heads 3"},
        {"model: {" + sizes + ", num_attention_heads: @3",
         "model.hidden_size 64 is not a multiple of num_attention_heads 3: give model.head_dim"},
        {"model: {" + sizes + ", num_attention_heads: 3, head_dim: @7",
         "model.head_dim 7: expected an even number from 2 to 256"},
        {"model: {" + sizes + ", num_attention_heads: 4, sliding_window: @8", "model.sliding_window: llama has none"},
        {"model: {" + sizes + ", num_attention_heads: 4, max_position_embeddings: @512",
         "max_length 2048 is longer than model.max_position_embeddings 512"},
    };
    const std::string base = "datasets: [{path: a}]\noutput_dir: o\n";
    for (Bad bad : cases) {
        const size_t place = bad.added.find('@');
        bad.added.erase(place, 1);
        EXPECT_EQ(problems(base + "tokenizer_name_or_path: t\n" + bad.added + "}"),
                  fmt::format("c.yaml:4:{}: {}", place + 1, bad.message));
    }
    EXPECT_EQ(problems(base + "model: {" + sizes + ", num_attention_heads: 4}\n"),
              "c.yaml:3:8: model.vocab_size is missing and there is no tokenizer to take it from: give one of "
              "tokenizer_name_or_path and model.vocab_size");
}

TEST(ConfigErrors, ReportsMissingKeys) {
    for (const std::string empty : {"", "# nothing\n", "---\n", "~\n", "seed:\n"})
        EXPECT_EQ(problems(empty),
                  "c.yaml: 3 problems\n"
                  "  c.yaml: model_name_or_path (a folder to start from) or model (a shape) is missing\n"
                  "  c.yaml: datasets is missing: expected a list such as [{path: train.jsonl}]\n"
                  "  c.yaml: output_dir is missing");
}

TEST(ConfigErrors, ReportsAllProblemsAtOnceWithoutConsequences) {
    // packing_length would be shorter than the default of max_length, which could not be read.
    EXPECT_EQ(problems(minimal + "max_length: x\npacking_length: 128\nsed: 1\nwarmup_steps: -1\n", {"lr=0", "foo"}),
              "c.yaml: 5 problems\n"
              "  argument 'foo': expected key=value, --key=value or --key value\n"
              "  c.yaml:4:13: max_length: expected an integer >= 2 and <= 16777216, found 'x'\n"
              "  c.yaml:6:1: unknown key 'sed' (did you mean 'seed'?)\n"
              "  c.yaml:7:15: warmup_steps: expected an integer >= 0 and <= 1000000000, found '-1'\n"
              "  argument 'lr=0': learning_rate: expected a number > 0, found '0'");
}

TEST(ConfigErrors, AcceptsOnlySafeYaml) {
    const std::string deep = "x: " + std::string(32, '[') + std::string(32, ']');
    std::string wide = "report_to: [";
    for (int i = 0; i < 10'001; ++i) wide += "jsonl,";
    const std::vector<Bad> cases = {
        {"seed: &a 1", "c.yaml:4:7: anchors (&name) are not allowed in a config"},
        {"seed: *a", "c.yaml:4:7: this is not valid YAML: the referenced anchor is not defined"},
        {"x: &a 1\nseed: *a", "c.yaml:4:4: anchors (&name) are not allowed in a config"},
        {"seed: !!int 1", "c.yaml:4:7: tags are not allowed in a config, found 'tag:yaml.org,2002:int'"},
        {"? [a, b]\n: 1", "c.yaml:4:3: expected the name of a key, found [a, b]"},
        {"seed: [1", "this is not valid YAML"},
        {"\tseed: 1", "this is not valid YAML"},
        {"output_dir: \"runs/a\nseed: 2\nthreads: \"1", "c.yaml:4:13: the quote \" is not closed in its line"},
        {"output_dir: 'runs/a\nseed: 2'", "c.yaml:4:13: the quote ' is not closed in its line; close it, or write a"},
        {"---\nseed: 1", "a second YAML document begins after the first"},
        {deep, "c.yaml:4:35: more than 32 levels"},
        {wide + "]", "more than 10000 values"},
        {"# " + std::string(1 << 20, 'x'), "c.yaml: larger than 1048576 bytes"},
    };
    for (const Bad& bad : cases) {
        const std::string message = problems(minimal + bad.added);
        EXPECT_NE(message.find(bad.message), std::string::npos) << message << "\n  lacks: " << bad.message;
    }
    EXPECT_EQ(problems("- a\n"), "c.yaml:1:1: expected 'key: value' lines, found [a]");
}

}  // namespace
}  // namespace colonnade
