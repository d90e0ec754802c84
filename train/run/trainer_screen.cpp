// What a run shows: the plan, the line of progress, evaluations, answers to signals.

#include <unistd.h>

#include "engine/device/human_units.h"
#include "engine/device/terminal.h"
#include "engine/device/timing.h"
#include "engine/io/file_system.h"
#include "train/run/trainer.h"

namespace colonnade {

void Trainer::show_plan() {
    if (!ranks_.first()) return;
    const std::string head =
        fmt::format("# differs from the defaults; {}/config.yaml has all keys", config_.output_dir);
    const std::string changed = changed_yaml(config_, session_.given);
    const auto text = [&](const PlanView& view) {
        const std::string first = view.fitting(head, 2);
        return fmt::format("{}\n{}\n{}\n", view.colours ? styled(first, Style::dim) : first, view.fitting(changed, 4),
                           plan(view));
    };
    print(text({.length = PlanLength::brief}), text(PlanView::of_stdout(PlanLength::brief)));
}

void Trainer::start_progress() {
    ProgressOptions options{.label = "train",
                            .total = static_cast<double>(schedule_.total_steps()),
                            .initial = static_cast<double>(state_.step)};
    if (state_.step < schedule_.total_steps())  // until a step is done
        options.fields = {{"loss -", fmt::format("lr {:.2e}", learning_rate(rates_, state_.step)), "- tokens/s"}, 3};
    if (!ranks_.first()) options.write = [](std::string_view) {};
    stop_->answer_first("will save and stop after this step", 0);
    advanced_ = options.initial;
    progress_ = std::make_unique<Progress>(options);
}

void Trainer::advance(double steps) {
    advanced_ = std::max(advanced_, steps);  // on a GPU the micro-steps of the next step are enqueued meanwhile
    progress_->update(advanced_);
}

void Trainer::answer_signals(Clock::time_point start, int64_t micro_steps) {
    const double elapsed = seconds_since(start);
    const auto left = static_cast<double>(config_.gradient_accumulation_steps - micro_steps);
    const double by_micro_steps = micro_steps > 0 ? elapsed / static_cast<double>(micro_steps) * left : 0;
    stop_->answer_first("will save and stop after this step",
                        step_seconds_ > 0 ? std::max(step_seconds_ - elapsed, 0.0) : by_micro_steps);
    if (micro_steps > 0) return;
    stop_->answer_second(last_checkpoint_.empty()
                             ? fmt::format("stopped at once, without a checkpoint: {} steps are lost", state_.step)
                             : fmt::format("stopped at once: what came after {} is lost; resume_from_checkpoint: auto "
                                           "continues from there",
                                           last_checkpoint_));
}

ProgressFields Trainer::figures(const LossSums& loss, const StepResult& result, double rate,
                                double tokens_per_second) const {
    ProgressFields fields;
    const std::string all = objective().figures(loss, Phase::training);
    const size_t end = std::min(all.find(", "), all.size());  // of the loss
    fields.texts = {all.substr(0, end), fmt::format("lr {:.2e}", rate),
                    fmt::format("{} tokens/s", human_count(tokens_per_second))};
    fields.kept = fields.texts.size();
    if (end < all.size()) fields.texts.push_back(all.substr(end + 2));
    fields.texts.push_back(fmt::format("grad_norm {:.3f}", result.gradient_norm));
    return fields;
}

LossSums Trainer::evaluate_own(const PackSchedule& schedule) {
    const StoreResult& split = session_.eval;
    const LoaderOptions of_rank{.rank = ranks_.rank(),
                                .reference = references_.eval,
                                .teacher = split.teacher.get(),
                                .mismatched = &split.mismatched};
    const bool twice = objective().needs_mismatched() && !split.mismatched.empty();
    const auto batches = static_cast<double>(schedule.total_steps() * (twice ? 2 : 1));
    if (progress_) progress_->pause();
    ProgressOptions options{.label = "eval", .total = batches, .unit = "batches", .passing = true};
    if (!ranks_.first()) options.write = [](std::string_view) {};
    const auto start = Clock::now();
    const auto answer = [&](double done) {
        stop_->answer_first(
            state_.step > 0 ? "will save and stop after this evaluation" : "will save and stop after the first step",
            done > 0 ? seconds_since(start) / done * (batches - done) : 0);
    };
    answer(0);
    LossSums own;
    {
        Progress progress(options);
        double done = 0;
        const auto for_each_batch = [&](const auto& body) {
            Loader loader(split.store, schedule, of_rank);
            while (const auto loaded = loader.next()) {
                body(*loaded);
                progress.update(++done);
                answer(done);
            }
        };
        learner_->begin_mismatched();
        if (twice)
            for_each_batch([&](const LoadedBatch& loaded) {
                for (const Batch& mismatched : loaded.mismatched) learner_->add_mismatched(ctx_, mismatched);
            });
        learner_->end_mismatched(ctx_, static_cast<double>(split.store.size()));
        for_each_batch([&](const LoadedBatch& loaded) { own += learner_->evaluate(ctx_, loaded.batch); });
    }
    if (progress_) progress_->resume();
    return own;
}

void Trainer::show_writing(const std::string& label, size_t bytes, uint64_t from, const std::function<void()>& write) {
    if (!ranks_.first()) return write();
    const auto done = [from] { return static_cast<double>(written_bytes() - from); };
    if (progress_) progress_->pause();
    {
        Progress progress({.label = label,
                           .total = static_cast<double>(bytes),
                           .initial = done(),
                           .unit = "B",
                           .passing = true,
                           .done = done});
        write();
    }
    if (progress_) progress_->resume();
}

void Trainer::show_evaluation(double seconds, const std::string& remark) {
    ProgressFields fields;
    const std::string figures = objective().figures(last_eval_, Phase::evaluation);
    for (size_t begin = 0, end; begin < figures.size(); begin = end + 2) {
        end = std::min(figures.find(", ", begin), figures.size());
        fields.texts.push_back(figures.substr(begin, end - begin));
        if (begin == 0 && !remark.empty()) fields.texts.push_back(remark);
    }
    fields.texts.push_back(human_duration(seconds));
    note(fmt::format("eval at step {}", state_.step), fields);
}

void Trainer::note(const std::string& line) const {
    if (record_) record_->print(line + "\n");
    if (progress_)
        progress_->print(line);
    else if (ranks_.first())
        fmt::print(stderr, "{}\n", for_terminal(line, STDERR_FILENO, 4));
}

void Trainer::note(const std::string& head, const ProgressFields& fields) const {
    if (!progress_) return note(fields.after(head));
    if (record_) record_->print(fields.after(head) + "\n");
    progress_->print(head, fields);
}

}  // namespace colonnade
