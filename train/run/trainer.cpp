#include "train/run/trainer.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "data/store/unigram.h"
#include "engine/device/human_units.h"
#include "engine/device/terminal.h"
#include "engine/device/timing.h"
#include "engine/device/used_memory.h"
#include "engine/io/file_system.h"
#include "engine/io/files.h"
#include "train/folders/export.h"
#include "train/run/run_schedule.h"
#include "train/run/run_summary.h"
#include "train/run/stage_objective.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

double gibibytes(size_t bytes) {
    return static_cast<double>(bytes) / (1 << 30);
}

BestRules best_rules(const Config& c) {
    return {.metric = c.metric_for_best_model,
            .greater_is_better = c.greater_is_better == Tristate::on,
            .patience = c.early_stopping_patience,
            .threshold = c.early_stopping_threshold};
}

/// If the machine has less than the key says, the run finds out when it takes the memory (prepare_saves()).
size_t memory_of_host(const Config& c) {
    return c.host_memory.bytes > 0 ? static_cast<size_t>(c.host_memory.bytes) : available_memory();
}

}  // namespace

Trainer::Trainer(Session session, const Ranks& ranks)
    : ranks_(ranks),
      session_(std::move(session)),
      config_(session_.config),
      schedule_(run_schedule(session_, ranks.size())),
      saves_(plan_saves(session_, ranks, memory_of_host(config_))),
      rates_(lr_schedule(config_, schedule_.total_steps())),
      spikes_({config_.loss_spike_z, config_.loss_spike_window}),
      best_(best_rules(config_)) {}

void Trainer::print(const std::string& text) const {
    print(text, for_terminal(text, STDOUT_FILENO, 4));
}

void Trainer::print(const std::string& text, const std::string& shown) const {
    if (record_) record_->print(text);
    try {
        fmt::print("{}", shown);
    } catch (const std::system_error&) {  // a full disk or a reader that left ends no training
    }
}

void Trainer::log(const std::vector<Metric>& metrics) const {
    if (!log_) return;
    log_->write(state_.step, epoch_, metrics);
    if (const std::string trouble = log_->take_trouble(); !trouble.empty()) note("warning: " + trouble);
}

int Trainer::stop_signal() const {
    return static_cast<int>(ranks_.max("stop signal", StopSignal::number()));
}

bool Trainer::weights_check_due() const {
    return ranks_.several() && config_.param_checksum_steps > 0 && enqueued_ % config_.param_checksum_steps == 0;
}

void Trainer::check_weights() {
    if (!ranks_.several()) return;
    require_same_weights(ranks_, learner_->weights_checksum(), state_.step, last_agreed_step_);
    last_agreed_step_ = state_.step;
}

std::string Trainer::plan(const PlanView& view) {
    return plan_text({session_, schedule_, saves_, ranks_}, view);
}

void Trainer::run() {
    ranks_.end_all_on_error([&] {
        try {
            train();
        } catch (...) {
            record_failure();
            throw;
        }
    });
}

void Trainer::record_failure() {
    if (!record_) return;
    const std::string what = error_in_flight().what();
    record_->print(fmt::format("error: {}\n", what));
    record_end({"failed", "with: " + what, state_.step});
}

void Trainer::record_end(const RunEnd& end) {
    if (!record_) return;
    record_->end(end);
    update_report();
}

void Trainer::train() {
    ranks_.together("output_dir", [&] {
        if (ranks_.first()) open_output_dir();
    });
    const int64_t packs = schedule_.plan(0).packs(), packs_per_step = schedule_.settings().layout.packs_per_step();
    if (ranks_.several() && packs < packs_per_step)
        say("note: an epoch has {} packs, a step takes {}: some ranks get no samples\n", packs, packs_per_step);
    show_plan();
    start();
    // What a trained model scores lies far below it.
    const bool from_random = config_.model && (config_.stage == Stage::pt || config_.stage == Stage::sft);
    if (ranks_.first() && from_random && session_.eval.store.size() > 0) {
        unigram_loss_ = unigram_loss(session_.train.store, session_.eval.store, session_.model.vocab_size);
        say("baseline: a unigram model scores {:.4f} on the evaluation set\n", unigram_loss_);
    }
    begin_report();
    std::fflush(stdout);

    stop_.emplace(StopSignal::Options{.grace = ranks_.several() ? 2 : 0, .answers = ranks_.first()});
    if (ranks_.watchdog()) ranks_.watchdog()->set_told_to_end([] { return StopSignal::number() != 0; });
    if (config_.eval_on_start && state_.step == 0) evaluate();
    start_progress();
    Loader loader(session_.train.store, schedule_,
                  {.start_step = state_.step,
                   .rank = ranks_.rank(),
                   .document_mask = config_.document_mask,
                   .reference = references_.train,
                   .teacher = session_.train.teacher.get(),
                   .mismatched = &session_.train.mismatched});
    while (!best_.should_stop()) {
        auto batch = loader.next();
        if (!batch) break;
        const int64_t epoch_step = batch->epoch_step + 1, epoch_steps = batch->epoch_steps;
        train_step(loader, std::move(*batch));
        if (saver_) report_save(saver_->poll());
        int signal = stop_signal();
        // Evaluation, checkpoints and checks need the weights after this step. On the CPU, steps do not overlap anyway.
        const bool due = eval_due(epoch_step, epoch_steps) || save_due(epoch_step, epoch_steps) || weights_check_due();
        if (due || !gpu_ || signal || enqueued_ == schedule_.total_steps()) complete_step();
        if (weights_check_due()) check_weights();
        const bool best = eval_due(epoch_step, epoch_steps) && evaluate();
        const bool saves_best = config_.load_best_model_at_end || config_.save_strategy == Every::best;
        if (save_due(epoch_step, epoch_steps) || (best && saves_best)) save();
        if (due && !signal) signal = stop_signal();  // one that came meanwhile
        if (signal) {
            complete_step();
            progress_->finish();
            if (last_save_step_ != state_.step) save();
            await_save();
            say("stopped by {} after step {} of {}; set resume_from_checkpoint: auto to continue\n",
                StopSignal::name(signal), state_.step, schedule_.total_steps());
            record_end({"stopped", fmt::format("by {}", StopSignal::name(signal)), state_.step});
            return;
        }
    }
    progress_->finish();
    if (best_.should_stop())
        say("stopped early after step {} of {}: {} (early_stopping_patience)\n", state_.step, schedule_.total_steps(),
            best_.text());
    finish();
    record_end(best_.should_stop() ? RunEnd{"finished", "early: " + best_.text(), state_.step}
                                   : RunEnd{"finished", "", state_.step});
}

/// `times` points of an epoch (0: one), at equal distances; the last one is its end.
static bool due_in_epoch(int64_t step, int64_t steps, int64_t times) {
    times = std::max<int64_t>(times, 1);
    return step * times / steps > (step - 1) * times / steps;
}

bool Trainer::eval_due(int64_t epoch_step, int64_t epoch_steps) const {
    const Every every = config_.eval_strategy;
    return (every == Every::steps && enqueued_ % config_.eval_steps == 0) ||
           (every == Every::epoch && due_in_epoch(epoch_step, epoch_steps, config_.evals_per_epoch)) ||
           (every != Every::never && enqueued_ == schedule_.total_steps());
}

bool Trainer::save_due(int64_t epoch_step, int64_t epoch_steps) const {
    const Every every = config_.save_strategy;
    return (every == Every::steps && enqueued_ % config_.save_steps == 0) ||
           (every == Every::epoch && due_in_epoch(epoch_step, epoch_steps, config_.saves_per_epoch));
}

void Trainer::train_step(Loader& loader, LoadedBatch batch) {
    const auto start = Clock::now();
    ranks_.set_step(batch.step + 1);
    check_device(batch);
    learner_->begin_step();
    learner_->begin_mismatched();
    for (const Batch& mismatched : batch.mismatched) learner_->add_mismatched(ctx_, mismatched);
    learner_->end_mismatched(ctx_, static_cast<double>(batch.step_totals.samples));
    std::vector<int64_t> samples;
    for (int64_t micro = 0;; ++micro) {
        answer_signals(start, micro);
        const MicroStep micro_step{.total = objective().total(batch.step_totals),
                                   .last = micro + 1 == config_.gradient_accumulation_steps};
        learner_->accumulate(ctx_, batch.batch, micro_step);
        samples.insert(samples.end(), batch.samples.begin(), batch.samples.end());
        if (micro_step.last) break;
        // The update counts as half of a micro-step.
        advance(static_cast<double>(batch.step) +
                static_cast<double>(micro + 1) / (static_cast<double>(config_.gradient_accumulation_steps) + 0.5));
        auto next = loader.next();
        require(next.has_value(), "step {} has no micro-step {}", batch.step, micro + 1);
        batch = std::move(*next);
    }
    const double rate = learning_rate(rates_, batch.step);
    if (saver_) saver_->hold();
    learner_->update(ctx_, adamw_settings(config_), rate, config_.max_grad_norm, update_limits(batch.step + 1));
    complete_step();
    enqueued_ = batch.step + 1;
    under_way_ = {.step = enqueued_,
                  .epoch = static_cast<double>(batch.epoch) +
                           static_cast<double>(batch.epoch_step + 1) / static_cast<double>(batch.epoch_steps),
                  .totals = batch.step_totals,
                  .learning_rate = rate,
                  .start = start,
                  .samples = std::move(samples)};
}

void Trainer::complete_step() {
    if (!under_way_) return;
    const StepUnderWay step = *std::exchange(under_way_, std::nullopt);
    const StepResult result = result_of(step);
    watch_spikes(step, result);
    // If steps overlap, the time of a step begins when the previous one is done.
    const double seconds = seconds_since(std::max(step.start, last_completed_));
    last_completed_ = Clock::now();
    step_seconds_ = seconds;
    for (Window* w : {&window_, &run_}) {
        w->loss += result.loss;
        w->seconds += seconds;
        w->tokens += static_cast<double>(step.totals.tokens);
        w->samples += static_cast<double>(step.totals.samples);
        ++w->steps;
    }
    state_.step = step.step;
    state_.tokens_seen += step.totals.tokens;
    state_.samples_seen += step.totals.samples;
    epoch_ = step.epoch;
    if (step.step == 1) check_first_loss(result.loss);
    if (step.step % config_.logging_steps == 0 || step.step == 1 || step.step == schedule_.total_steps())
        log_window(result, step.learning_rate);
    advance(static_cast<double>(step.step));
}

void Trainer::check_first_loss(const LossSums& sums) const {
    if (const std::string misfit = objective().misfit(sums); !misfit.empty()) note("warning: " + misfit);
    const double loss = sums.mean();
    const std::optional<double> expected = references_.key.empty() ? std::nullopt : objective().untrained_loss();
    // Log-probabilities sum over hundreds of tokens; in bf16 they also depend on the packs.
    const double bound = gpu_ ? 0.05 : 1e-3;
    // The reference has no dropout; fresh adapters add nothing, with dropout or without.
    const bool is_reference =
        config_.ref_model_name_or_path.empty() && (config_.lora_dropout == 0 || config_.adapter_name_or_path.empty());
    if (!expected || !is_reference || std::abs(loss - *expected) <= bound * *expected) return;
    note(
        fmt::format("warning: the first loss is {:.6f}, but a policy equal to the reference has {:.6f}: does the "
                    "reference in {} belong to these weights and data?",
                    loss, *expected, config_.prepared_path));
}

void Trainer::log_window(const StepResult& result, double rate) {
    const double tokens_per_second = window_.tokens / window_.seconds;
    std::vector<Metric> metrics = {{"loss", window_.loss.mean()}};
    for (Metric& metric : objective().metrics(window_.loss, Phase::training)) metrics.push_back(std::move(metric));
    metrics.insert(metrics.end(), {{"learning_rate", rate},
                                   {"grad_norm", result.gradient_norm},
                                   {"tokens_per_second", tokens_per_second},
                                   {"samples_per_second", window_.samples / window_.seconds},
                                   {"step_seconds", window_.seconds / static_cast<double>(window_.steps)},
                                   {"num_tokens", state_.tokens_seen},
                                   {"host_memory_gib", gibibytes(resident_memory())}});
    if (gpu_) metrics.emplace_back("gpu_memory_gib", gibibytes(used_gpu_memory()));
    log(metrics);
    ProgressFields shown = figures(window_.loss, result, rate, tokens_per_second);
    progress_->fields(shown);
    shown.texts.push_back(fmt::format("epoch {:.2f}", epoch_));
    note(fmt::format("step {}/{}", state_.step, schedule_.total_steps()), shown);
    window_ = {};
}

LossSums Trainer::over_ranks(const LossSums& own) const {
    const LossSums::Numbers numbers = own.numbers();
    const auto extremes = numbers.begin() + LossSums::sums;
    std::vector<double> all = ranks_.sum("evaluation", {numbers.begin(), extremes});
    const std::vector<double> largest = ranks_.max("evaluation", {extremes, numbers.end()});
    all.insert(all.end(), largest.begin(), largest.end());
    return LossSums::of(all);
}

bool Trainer::evaluate() {
    const TokenStore& store = session_.eval.store;
    if (store.size() == 0 || last_eval_step_ == state_.step) return false;
    const auto start = Clock::now();
    PackSchedule schedule(session_.eval.row_lengths(),
                          {.packing = eval_packing(config_),
                           .layout = {config_.per_device_eval_batch_size, 1, ranks_.size()},
                           .epochs = 1},
                          session_.eval.prefixes, visible_pairs(config_, store));
    const LossSums sums = over_ranks(evaluate_own(schedule));
    const auto tokens = static_cast<double>(store.tokens());
    const double seconds = seconds_since(start);
    last_eval_step_ = state_.step;
    last_eval_ = sums;
    std::vector<Metric> metrics = evaluation_metrics(objective(), sums);
    // transformers does not compare what it evaluates before the first step.
    const bool best = state_.step > 0 && best_.add(state_.step, metric_named(metrics, best_.rules().metric));
    metrics.insert(
        metrics.end(),
        {{"eval_samples", store.size()}, {"eval_tokens_per_second", tokens / seconds}, {"eval_runtime", seconds}});
    log(metrics);
    const std::string remark = best              ? fmt::format("the best {} so far", best_.rules().metric)
                               : state_.step > 0 ? best_.text()
                                                 : "";
    show_evaluation(seconds, remark);
    show_answers();
    update_report();
    return best;
}

void Trainer::show_answers() {
    if (config_.eval_table_size == 0) return;
    if (answers_) {
        try {
            const std::vector<SampleAnswer> samples = answers_->answer(ctx_);
            for (const std::string& line : lines_of(samples)) note(line);
            if (log_ && !samples.empty()) log_->write_samples(state_.step, epoch_, samples);
        } catch (const Error& e) {
            if (e.exit() != Exit::numerics) throw;
            note(fmt::format("warning: no sample answers: {}", e.what()));
        }
    }
    ranks_.barrier("sample answers", Deadline::none);
}

void Trainer::save() {
    if (state_.step == last_save_step_) return;
    const std::string folder = checkpoint_folder(config_.output_dir, state_.step);
    await_save();  // never two at once
    state_.since_log = window_.loss;
    state_.recent = spikes_.recent();
    state_.best = best_.record();
    last_save_step_ = state_.step;
    save_bytes_ = state_bytes(session_.model, learner_->options(), session_.device);
    written_before_save_ = written_bytes();
    if (saver_) {
        note(fmt::format("saving {}", folder));
        saver_->begin(folder, state_, config_.save_total_limit);
    } else if (ranks_.first() || saves_.sharded) {
        const auto start = Clock::now();
        uint64_t bytes = 0;
        show_writing("saving", save_bytes_, written_before_save_,
                     [&] { bytes = save_checkpoint(folder, *learner_, state_, writers(), further_files()); });
        if (ranks_.first())
            report_save(SavedCheckpoint{
                folder, bytes, seconds_since(start),
                rotate_checkpoints(config_.output_dir, Rotation::of(config_.save_total_limit, state_.best))});
    }
    ranks_.barrier("checkpoint", Deadline::none);
}

void Trainer::await_save() {
    if (saver_) {
        std::optional<SavedCheckpoint> saved;
        const auto wait = [&] { saved = saver_->wait(); };
        saver_->under_way() ? show_writing("saving", save_bytes_, written_before_save_, wait) : wait();
        report_save(saved);
    }
    ranks_.barrier("checkpoint", Deadline::none);
}

void Trainer::report_save(const std::optional<SavedCheckpoint>& saved) {
    if (!saved) return;
    last_checkpoint_ = saved->folder;
    note(fmt::format("saved {}: {} in {}", saved->folder, human_bytes(saved->bytes), human_duration(saved->seconds)));
    if (!saved->trouble.empty() && !std::exchange(told_of_old_checkpoint_, true))
        note(fmt::format("warning: an old checkpoint stays, and so may later ones: {}", saved->trouble));
    update_report();
}

void Trainer::finish() {
    stop_->answer_first("the run is at its end and writes its model", 0);
    const bool saves = config_.save_strategy == Every::steps || config_.save_strategy == Every::epoch;
    if (saves && last_save_step_ != state_.step) save();
    await_save();
    exported_step_ = state_.step;
    load_best();
    ExportRequest result = export_request(config_, session_.encoder, *learner_, config_.output_dir);
    const bool one_by_one = learner_->options().gpu && !learner_->has_base() && !learner_->collects_weights();
    const HostCopy all = one_by_one ? HostCopy::blank(DType::f32, 0) : learner_->all_weights();
    if (one_by_one)
        result.read = [this](const Parameter& p) { return learner_->master_weight(p); };
    else
        result.weights = all.tensor();
    const auto write = [&] {
        if (const auto& lora = learner_->options().lora)
            export_adapter(result, *lora);
        else if (learner_->options().freeze)
            export_with_frozen(result, *learner_);
        else
            export_model(result);
        if (config_.export_merged)
            export_merged_copy(config_, session_.encoder, *learner_, result.weights, merged_folder(config_));
        write_cards();
    };
    const size_t written_weights =
        static_cast<size_t>(learner_->parameters().size()) * bytes_of(learner_->options().compute_dtype());
    if (ranks_.first()) show_writing("writing the model", written_weights, written_bytes(), write);
    ranks_.barrier("the exported model", Deadline::none);
    if (!ranks_.first()) return;
    if (state_.skipped_steps > 0)
        say("{} of {} steps were left out as spikes; metrics.jsonl names their rows\n", state_.skipped_steps,
            state_.step);
    const bool evaluated = last_eval_step_ >= 0;
    print_summary(config_, {.steps = run_.steps,
                            .tokens = run_.tokens,
                            .seconds = run_.seconds,
                            .fill = schedule_.plan(0).fill,
                            .eval = evaluated ? objective().figures(last_eval_, Phase::evaluation) : std::string(),
                            .unigram_loss = unigram_loss_});
}

}  // namespace colonnade
