// The trainer's watch over the numbers of a step: not finite, or a spike.

#include <bit>

#include "engine/io/json.h"
#include "train/run/suspect_rows.h"
#include "train/run/trainer.h"

namespace colonnade {
namespace {

/// Rows of one rank that the log names.
constexpr size_t rows_logged = 100;

}  // namespace

void Trainer::check_device(const LoadedBatch& batch) {
    const int64_t every = config_.recompute_check_steps;
    if (every == 0 || batch.step % every != 0) return;
    const double total = objective().total(batch.step_totals);
    const Fingerprint a = learner_->fingerprint(ctx_, batch.batch, total);
    const Fingerprint b = learner_->fingerprint(ctx_, batch.batch, total);
    const bool gradients = a.gradients != b.gradients && (!gpu_ || config_.deterministic);
    // Bits are compared, so that NaN equals NaN.
    const bool loss = std::bit_cast<uint64_t>(a.loss) != std::bit_cast<uint64_t>(b.loss);
    ranks_.together("recomputation", [&] {
        if (loss || gradients)
            fail(Exit::peer,
                 "step {}: {} computed a micro-step twice with different bits: the loss {} and {}, checksums of the "
                 "gradients {:016x} and {:016x}; its processor, GPU or memory is faulty; the last checkpoint may be "
                 "affected",
                 batch.step + 1, ranks_.several() ? ranks_.name(ranks_.rank()) : "this machine", a.loss, b.loss,
                 a.gradients, b.gradients);
    });
}

StepResult Trainer::result_of(const StepUnderWay& step) {
    try {
        // On a GPU the exchange of gradients is only enqueued; the host waits for it here.
        const Watchdog::Wait wait(gpu_ ? ranks_.watchdog() : nullptr, "result of the step");
        return learner_->result();
    } catch (const Error& e) {
        if (e.exit() != Exit::numerics) throw;
        const LoaderOptions loader{.start_step = step.step - 1,
                                   .rank = ranks_.rank(),
                                   .document_mask = config_.document_mask,
                                   .reference = references_.train,
                                   .teacher = session_.train.teacher.get(),
                                   .mismatched = &session_.train.mismatched};
        const std::string first = first_bad_number({*learner_, ctx_, session_.train.store, schedule_, loader, ranks_});
        await_save();  // of an earlier step
        ranks_.together("the step again", [&] { fail(Exit::numerics, "{}; not finite first: {}", e.what(), first); });
        throw;
    }
}

UpdateLimits Trainer::update_limits(int64_t step) const {
    const LossSpike policy = config_.loss_spike;
    if (policy != LossSpike::skip && policy != LossSpike::stop) return {};
    UpdateLimits limits = spikes_.limits(step);
    limits.hold = policy == LossSpike::stop;
    return limits;
}

void Trainer::watch_spikes(const StepUnderWay& step, const StepResult& result) {
    if (config_.loss_spike == LossSpike::off) return;
    const StepNumbers numbers{step.step, result.loss.mean(), result.gradient_norm};
    const UpdateLimits limits = spikes_.limits(step.step);
    const bool spike = numbers.loss > limits.loss || numbers.gradient_norm > limits.gradient_norm;
    if (!spike) return spikes_.add(numbers);
    const std::vector<std::string> rows = rows_of(step);
    const std::string what = fmt::format("step {}: {} is a spike (loss_spike_z {})", step.step,
                                         spikes_.figures(numbers), config_.loss_spike_z);
    if (config_.loss_spike == LossSpike::stop) {
        progress_->finish();
        if (last_save_step_ != state_.step) save();
        await_save();
        ranks_.together("loss spike", [&] {
            fail(Exit::numerics,
                 "{}; {} has the state before it: look at its rows ({}), then resume with loss_spike: skip, or with a "
                 "lower learning_rate",
                 what, checkpoint_folder(config_.output_dir, state_.step), row_list(rows));
        });
    }
    spikes_.add(numbers);
    if (!result.applied) ++state_.skipped_steps;
    note(fmt::format("warning: {}{}; rows {}", what, result.applied ? "" : "; its update is left out", row_list(rows)));
    if (log_)
        log_->write(step.step, step.epoch,
                    {{"spike_loss", numbers.loss},
                     {"spike_grad_norm", numbers.gradient_norm},
                     {"skipped_steps", state_.skipped_steps}},
                    rows);
}

std::vector<std::string> Trainer::rows_of(const StepUnderWay& step) const {
    std::vector<std::string> own = places_of(session_.train.store, step.samples);
    if (own.size() > rows_logged) own.resize(rows_logged);
    if (!ranks_.several()) return own;
    std::vector<std::string> all;
    for (const std::string& rows :
         ranks_.gather("rows of the step", Json(own).dump(-1, ' ', false, Json::error_handler_t::replace)))
        for (const Json& row : parse_json(rows, "rows of a rank")) all.push_back(row.get<std::string>());
    return all;
}

}  // namespace colonnade
