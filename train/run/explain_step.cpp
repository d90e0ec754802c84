#include "train/run/explain_step.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "data/prepare_report.h"
#include "engine/io/files.h"
#include "engine/io/progress.h"
#include "train/config/spellings.h"
#include "train/folders/checkpoint.h"
#include "train/folders/initial_weights.h"
#include "train/folders/run_checkpoints.h"
#include "train/run/learner_options.h"
#include "train/run/reference.h"
#include "train/run/run_schedule.h"
#include "train/run/suspect_rows.h"
#include "train/step/spike_watch.h"

namespace colonnade {
namespace {

/// Calls body(line) for every line of the log.
template <typename Body>
void for_each_line(const std::string& output_dir, Body&& body) {
    const std::string path = output_dir + "/metrics.jsonl";
    std::ifstream file(path);
    if (!file) fail(Exit::data, "{}: cannot read it; expected the folder of a run", path);
    int64_t number = 0;
    for (std::string line; std::getline(file, line);) body(parse_json(line, fmt::format("{}:{}", path, ++number)));
}

/// The steps of a run, one after the other, on one rank that does the work of all.
class Replay {
  public:
    Replay(Session session, const std::string& output_dir, int ranks)
        : session_(std::move(session)),
          config_(session_.config),
          schedule_(run_schedule(session_, ranks)),
          ranks_(ranks),
          rates_(lr_schedule(config_, schedule_.total_steps())) {
        if (session_.device == Device::cuda) gpu_ = std::make_unique<Gpu>(static_cast<int>(config_.device_index));
        LearnerOptions options = learner_options(config_, one_rank(), gpu_.get());
        options.density = density_of(session_);
        learner_ = std::make_unique<Learner>(session_.model, options);
        ctx_ = learner_->context({.deterministic = config_.deterministic});
        load_or_initialize(config_, *learner_);
        references_ = make_references(session_, *learner_, ctx_);
        folder_ = output_dir;
    }

    /// Loads the newest checkpoint before `step`; returns its step.
    int64_t begin_before(int64_t step) {
        const std::vector<int64_t> saved = checkpoint_steps(folder_);
        const auto after = std::ranges::lower_bound(saved, step);
        if (after == saved.begin()) return 0;
        const int64_t at = *(after - 1);
        const TrainerState state = load_checkpoint(checkpoint_folder(folder_, at), *learner_);
        if (state.data_key != session_.data_key)
            fail(Exit::config, "{}: made from other data than {} names now", checkpoint_folder(folder_, at), folder_);
        spikes_ = SpikeWatch({config_.loss_spike_z, config_.loss_spike_window}, state.recent);
        return at;
    }

    /// Computes a step (1-based) and its update.
    StepResult run(int64_t step) {
        accumulate(step, nullptr);
        const bool limited = config_.loss_spike == LossSpike::skip || config_.loss_spike == LossSpike::stop;
        UpdateLimits limits = limited ? spikes_.limits(step) : UpdateLimits{};
        limits.hold = config_.loss_spike == LossSpike::stop;
        learner_->update(ctx_, adamw_settings(config_), rate(step), config_.max_grad_norm, limits);
        const StepResult result = learner_->result();
        if (config_.loss_spike != LossSpike::off) spikes_.add({step, result.loss.mean(), result.gradient_norm});
        return result;
    }

    /// Every sample of a step alone, with the weights as they are.
    std::vector<SampleShare> samples_of(int64_t step) {
        std::vector<std::pair<LoadedBatch, size_t>> batches;
        accumulate(step, [&](const LoadedBatch& loaded) { batches.emplace_back(loaded, loaded.samples.size()); });
        double count = 0, done = 0;
        for (const auto& [loaded, samples] : batches) count += static_cast<double>(samples);
        const double loss = learner_->loss().mean();
        Progress progress({.label = "samples", .total = count, .unit = "samples"});
        std::vector<SampleShare> shares;
        for (const auto& [loaded, samples] : batches)
            for (size_t i = 0; i < samples; ++i) {
                shares.push_back(share_of(loaded, i, loss));
                progress.update(++done);
            }
        progress.finish();
        std::ranges::stable_sort(shares, std::greater<>(), &SampleShare::gradient_norm);
        return shares;
    }

    double rate(int64_t step) const { return learning_rate(rates_, step - 1); }
    int64_t total_steps() const { return schedule_.total_steps(); }

  private:
    /// The gradients of a step. `see` is shown each micro-batch of each rank.
    void accumulate(int64_t step, const std::function<void(const LoadedBatch&)>& see) {
        std::vector<std::unique_ptr<Loader>> loaders;
        std::vector<std::vector<LoadedBatch>> loaded(static_cast<size_t>(ranks_));
        learner_->begin_step();
        learner_->begin_mismatched();
        for (int rank = 0; rank < ranks_; ++rank) {
            Loader loader(session_.train.store, schedule_,
                          {.start_step = step - 1,
                           .rank = rank,
                           .document_mask = config_.document_mask,
                           .reference = references_.train,
                           .teacher = session_.train.teacher.get(),
                           .mismatched = &session_.train.mismatched});
            for (int64_t micro = 0; micro < config_.gradient_accumulation_steps; ++micro)
                loaded[static_cast<size_t>(rank)].push_back(loader.next().value());
            for (const Batch& mismatched : loaded[static_cast<size_t>(rank)].front().mismatched)
                learner_->add_mismatched(ctx_, mismatched);
        }
        const StepTotals& totals = loaded.front().front().step_totals;
        learner_->end_mismatched(ctx_, static_cast<double>(totals.samples));
        for (const auto& of_rank : loaded)
            for (const LoadedBatch& batch : of_rank) {
                learner_->accumulate(
                    ctx_, batch.batch,
                    {.total = learner_->objective().total(totals), .last = &batch == &loaded.back().back()});
                if (see) see(batch);
            }
    }

    SampleShare share_of(const LoadedBatch& loaded, size_t i, double loss_of_step) {
        const double total = learner_->objective().total(loaded.step_totals);
        const Batch batch = alone(session_.train.store, loaded, i, session_.train.teacher.get());
        learner_->begin_step();
        learner_->accumulate(ctx_, batch, {.total = total});
        const LossSums sums = learner_->loss();
        SampleShare share{.place = session_.train.store.place(loaded.samples[i]),
                          .loss = sums.mean(),
                          .gradient_norm = learner_->gradient_norm(ctx_),
                          .tokens = batch.real_tokens};
        if (total > 0 && loss_of_step != 0) share.share = sums.nll / total / loss_of_step;
        if (const auto& tokenizer = session_.encoder->tokenizer())
            share.text = sample_text(session_.train.store.sample(loaded.samples[i]), *tokenizer);
        return share;
    }

    Session session_;
    const Config& config_;
    PackSchedule schedule_;
    int ranks_;
    LrSchedule rates_;
    std::string folder_;
    std::unique_ptr<Gpu> gpu_;
    std::unique_ptr<Learner> learner_;
    Context ctx_;
    References references_;
    SpikeWatch spikes_;
};

/// The number of ranks of the run, from its newest checkpoint; 1 without any.
int ranks_of(const std::string& output_dir) {
    const std::vector<int64_t> saved = checkpoint_steps(output_dir);
    if (saved.empty()) return 1;
    const std::string path = checkpoint_folder(output_dir, saved.back()) + "/trainer_state.json";
    return static_cast<int>(read_json_file(path).value("ranks", 1));
}

}  // namespace

int64_t conspicuous_step(const std::string& output_dir) {
    int64_t step = 0, spike = 0;
    double largest = -1;
    for_each_line(output_dir, [&](const Json& line) {
        const int64_t at = line.value("step", int64_t{0});
        if (line.contains("spike_loss")) spike = at;
        if (line.contains("grad_norm") && line["grad_norm"].is_number() && line["grad_norm"] > largest) {
            largest = line["grad_norm"];
            step = at;
        }
    });
    if (spike + step == 0) fail(Exit::data, "{}/metrics.jsonl: no line of a training step", output_dir);
    return spike > 0 ? spike : step;
}

ExplainedStep explain_step(const std::string& output_dir, int64_t step) {
    const std::string config = output_dir + "/config.yaml";
    if (!path_exists(config)) fail(Exit::config, "{}: there is none; expected the output_dir of a run", config);
    const int ranks = ranks_of(output_dir);
    Replay replay(open_session(load_config(config)), output_dir, ranks);
    if (step < 1 || step > replay.total_steps())
        fail(Exit::config, "step {}: expected one from 1 to {}, those of the run", step, replay.total_steps());
    ExplainedStep explained{.step = step, .begun_at = replay.begin_before(step), .learning_rate = replay.rate(step)};
    {
        Progress progress(
            {.label = "replay", .total = static_cast<double>(step - 1 - explained.begun_at), .unit = "steps"});
        for (int64_t s = explained.begun_at + 1; s < step; ++s) {
            replay.run(s);
            progress.update(static_cast<double>(s - explained.begun_at));
        }
        progress.finish();
    }
    explained.samples = replay.samples_of(step);
    const StepResult result = replay.run(step);
    explained.loss = result.loss.mean();
    explained.gradient_norm = result.gradient_norm;
    int64_t before = 0;
    for_each_line(output_dir, [&](const Json& line) {
        const int64_t at = line.value("step", int64_t{0});
        if (!line.contains("grad_norm") || !line.contains("loss")) return;
        if (at == step && before == step - 1) {
            explained.logged_loss = line["loss"];
            explained.logged_gradient_norm = line["grad_norm"];
        }
        before = at;
    });
    return explained;
}

}  // namespace colonnade
