#include "train/config/output_keys.h"

namespace colonnade {

Section output_section() {
    using C = Config;
    const Limits resume{.also_spelled = {{"false", ""}, {"true", "auto"}}};
    Key<Config> eval_strategy =
        key("eval_strategy", &C::eval_strategy, "When to evaluate.")
            .also({"evaluation_strategy"})
            .default_is("steps if eval_steps is given; else epoch if there is evaluation data; else no");
    eval_strategy.what = "one of no, steps, epoch";
    std::vector<Key<Config>> keys = {
        key("output_dir", &C::output_dir, "Folder for the model, checkpoints and logs.").default_is("required"),
        key("overwrite_output_dir", &C::overwrite_output_dir, "Start anew in a folder that contains an earlier run."),
        key("logging_steps", &C::logging_steps, "Steps between two log lines.", from_to(1, 1e9))
            .also({"log_every_n_steps"}),
        key("report_to", &C::report_to,
            "Logs to write: metrics.jsonl; TensorBoard event files in runs; metrics.csv; a W&B run in wandb, which "
            "wandb sync uploads; Trackio's inbox, which its dashboard imports; the MLflow server at "
            "MLFLOW_TRACKING_URI."),
        key("project", &C::project, "Project in W&B and Trackio; experiment in MLflow.").also({"wandb_project"}),
        key("run_name", &C::run_name, "Name of the run in TensorBoard's hparams, W&B, Trackio and MLflow.")
            .also({"wandb_name", "wandb_run_name"})
            .default_is("the name of output_dir"),
        eval_strategy,
        key("eval_steps", &C::eval_steps, "Steps between two evaluations.", from_to(0, 1e9))
            .also({"run_val_every_n_steps"}),
        key("evals_per_epoch", &C::evals_per_epoch, "Evaluations in an epoch, at equal distances.", from_to(0, 1e6)),
        key("eval_on_start", &C::eval_on_start, "Also evaluate before the first step."),
        key("eval_table_size", &C::eval_table_size,
            "Prompts of the evaluation data that the model answers, greedily, at every evaluation; printed and logged.",
            from_to(0, 1000)),
        key("eval_max_new_tokens", &C::eval_max_new_tokens, "Longest of these answers, in tokens.",
            from_to(1, 1 << 20)),
        key("save_strategy", &C::save_strategy,
            "When to write a checkpoint. best: after each evaluation that is the best so far.")
            .default_is("steps if save_steps is given, else epoch"),
        key("save_steps", &C::save_steps, "Steps between two checkpoints.", from_to(0, 1e9)),
        key("saves_per_epoch", &C::saves_per_epoch, "Checkpoints in an epoch, at equal distances.", from_to(0, 1e6)),
        key("save_total_limit", &C::save_total_limit,
            "Number of checkpoints to keep; 0: all. The newest and the best one always stay.", from_to(0, 1e6)),
        key("export_checkpoints", &C::export_checkpoints,
            "Every checkpoint is also a Hugging Face folder, which transformers (PEFT with LoRA) loads; larger by the "
            "model. Not with frozen layers, and with zero_stage: 1 on several ranks only with LoRA."),
        key("load_best_model_at_end", &C::load_best_model_at_end,
            "Export the model of the best evaluation, not that of the last step. Each evaluation that is the best so "
            "far is then saved, so eval_strategy and save_strategy need not match.")
            .default_is("true with early_stopping_patience"),
        key("metric_for_best_model", &C::metric_for_best_model,
            "What to compare: eval_loss, or another metric that evaluation logs; eval_ may be left out.")
            .default_is("eval_loss if one of the keys here compares"),
        key("greater_is_better", &C::greater_is_better, "Whether a greater metric is better.")
            .default_is("auto: true unless the metric's name ends in loss or perplexity"),
        key("early_stopping_patience", &C::early_stopping_patience,
            "Stop after this many evaluations in a row without improvement; 0: never.", from_to(0, 1e9))
            .also({"early_stopping_steps"}),
        key("early_stopping_threshold", &C::early_stopping_threshold,
            "An improvement has to exceed this difference of the metric.", at_least(0)),
        key("async_save", &C::async_save,
            "Write checkpoints while training goes on, from a copy of the weights and moments in host memory. auto: if "
            "the copy takes at most half of the host memory that the run leaves."),
        key("resume_from_checkpoint", &C::resume_from_checkpoint,
            "auto: the newest whole checkpoint in output_dir, if any (newer damaged ones are renamed to "
            "checkpoint-<step>.damaged); a checkpoint folder; false: start anew.",
            resume)
            .also({"auto_resume_from_checkpoints"})
            .default_is("false"),
    };
    for (Key<Config>& each : keys) each.affects_weights = false;
    return {"Output", std::move(keys)};
}

}  // namespace colonnade
