// The end of a run: which model is exported, the cards beside it, its report. Also what a resumed run knows of its best
// model.

#include <filesystem>

#include "train/run/machine.h"
#include "train/run/model_card.h"
#include "train/run/run_facts.h"
#include "train/run/run_summary.h"
#include "train/run/stage_objective.h"
#include "train/run/trainer.h"

namespace colonnade {

namespace fs = std::filesystem;

std::string Trainer::best_folder() const {
    const BestRecord& best = best_.record();
    return checkpoint_folder(best.output_dir.empty() ? config_.output_dir : best.output_dir, best.step);
}

void Trainer::resume_best(const std::string& folder) {
    BestRecord record = state_.best;
    const std::string output_dir = parent_of(folder);
    std::error_code error;
    if (record.step > 0 && record.output_dir.empty() && !fs::equivalent(output_dir, config_.output_dir, error))
        record.output_dir = output_dir;
    best_ = BestModel(best_.rules(), record);
    if (!record.metric.empty() && best_.record().metric.empty())
        say("note: since this checkpoint metric_for_best_model or greater_is_better changed: the best evaluation is "
            "looked for anew\n");
}

void Trainer::check_best() {
    const int64_t best = best_.record().step;
    // The checkpoint that is resumed was verified already.
    if (!config_.load_best_model_at_end || best == 0 || best == state_.step) return;
    const std::string folder = best_folder();
    const std::string damage = ranks_.broadcast("best checkpoint", ranks_.first() ? damage_of(folder) : "");
    if (damage.empty()) return;
    note(fmt::format(
        "warning: the best checkpoint so far ({} {:.6g} at step {}) is lost: {}; the best is looked for among "
        "the evaluations that follow",
        best_.rules().metric, best_.record().value, best, damage));
    best_.forget();
}

void Trainer::load_best() {
    if (!config_.load_best_model_at_end) return;
    const BestRecord& best = best_.record();
    const std::string last = fmt::format("the exported model is that of the last step, {}", state_.step);
    if (best.step == 0)
        return note(fmt::format("warning: no checkpoint is known as the best by {}; {}", best_.rules().metric, last));
    const std::string text = fmt::format("{} {:.6g} at step {}", best.metric, best.value, best.step);
    if (best.step == state_.step) return say("best: {}, which is the last step\n", text);
    const std::string folder = best_folder();
    const std::string damage = ranks_.broadcast("best checkpoint", ranks_.first() ? damage_of(folder) : "");
    if (!damage.empty()) return note(fmt::format("warning: the best model ({}) is lost: {}; {}", text, damage, last));
    ranks_.together("best checkpoint", [&] {
        if (ranks_.first() || saves_.sharded) load_checkpoint(folder, *learner_);
    });
    exported_step_ = best.step;
    say("best: {}; the exported model is that of {}\n", text, folder);
}

void Trainer::write_cards() const {
    const bool is_last = exported_step_ == state_.step;
    TrainingFacts facts{.step = exported_step_,
                        .last_step = state_.step,
                        .tokens = state_.tokens_seen,
                        .samples = state_.samples_seen,
                        .packs_per_step = schedule_.settings().layout.packs_per_step(),
                        .ranks = ranks_.size(),
                        .parameters = learner_->parameters().count(),
                        .device = device_name(session_.device, config_.device_index)};
    if (is_last && last_eval_step_ == state_.step)
        facts.metrics = evaluation_metrics(objective(), last_eval_);
    else if (!is_last)
        facts.metrics = {{best_.record().metric, best_.record().value}};
    const auto write = [&](const std::string& folder, CardOf kind) {
        if (!write_model_card(folder, model_card(config_, facts, kind)))
            note(fmt::format("note: {}/README.md is not a card of Colonnade and stays as it is", folder));
    };
    write(config_.output_dir, learner_->options().lora ? CardOf::adapters : CardOf::model);
    if (config_.export_merged) write(merged_folder(config_), CardOf::model);
}

void Trainer::begin_report() {
    if (!ranks_.first()) return;
    try {
        write_facts(config_.output_dir, facts_of_run({session_, schedule_, saves_, ranks_}, plan_, unigram_loss_));
        report_ = std::make_unique<RunReport>(config_.output_dir);
    } catch (const std::exception& e) {
        report_trouble(e.what());
    }
    update_report();
}

void Trainer::update_report() {
    if (!report_) return;
    try {
        report_->write();
    } catch (const std::exception& e) {
        report_trouble(e.what());
    }
}

void Trainer::report_trouble(const std::string& cause) {
    report_.reset();
    note(fmt::format("warning: {}/report.html is not written any more: {}", config_.output_dir, cause));
}

}  // namespace colonnade
