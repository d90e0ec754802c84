#include "train/bench/step_timing.h"

#include <omp.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>

#include "data/packing/loader.h"
#include "engine/device/device.h"
#include "engine/device/gpu_timer.h"
#include "engine/device/nvml.h"
#include "engine/device/timing.h"
#include "train/config/spellings.h"
#include "train/run/gpu_rates.h"
#include "train/run/learner_options.h"
#include "train/run/step_flops.h"

namespace colonnade {
namespace {

/// Micro-batches in order, each with the total by which the objective divides the loss of its step.
class MicroBatches {
  public:
    MicroBatches(const BenchmarkRun& run, const Objective& objective, const Ranks& ranks)
        : run_(run), objective_(objective), rank_(ranks.rank()) {
        if (run.batches.empty()) {
            lengths_ = run.session.train.store.lengths();
            go_to(0);
            return;
        }
        for (size_t i = 0; i < run.batches.size(); ++i) {
            if (i % of_step() == 0) totals_.push_back(0);
            totals_.back() += objective.total(run.batches[i]);
        }
        totals_ = ranks.sum("totals of steps", totals_);
    }
    struct Micro {
        const Batch& batch;
        double total;
        int64_t represented;  ///< tokens of its samples, each alone
    };
    /// next() is then the first one of this step.
    void go_to(int64_t step) {
        if (!run_.batches.empty()) {
            taken_ = static_cast<size_t>(step) * of_step();
            return;
        }
        const Config& c = run_.session.config;
        loader_.emplace(
            run_.session.train.store,
            PackSchedule(lengths_, {.packing = train_packing(c), .layout = run_.layout, .max_steps = run_.steps},
                         run_.session.train.prefixes, run_.session.train.store.visible_pairs()),
            LoaderOptions{
                .start_step = step, .rank = rank_, .document_mask = c.document_mask, .reference = run_.reference});
    }
    /// Valid until the next call.
    Micro next() {
        if (!loader_) {
            const size_t at = taken_++;
            const Batch& batch = run_.batches.at(at);
            return {batch, totals_[at / of_step()], batch.real_tokens};
        }
        loaded_ = loader_->next();
        require(loaded_.has_value(), "there are micro-batches for {} steps only", run_.steps);
        int64_t represented = 0;
        for (const int64_t i : loaded_->samples) represented += lengths_[static_cast<size_t>(i)];
        return {loaded_->batch, objective_.total(loaded_->step_totals), represented};
    }

  private:
    size_t of_step() const { return static_cast<size_t>(run_.layout.accumulation); }

    const BenchmarkRun& run_;
    const Objective& objective_;
    const int rank_;
    std::optional<Loader> loader_;
    std::optional<LoadedBatch> loaded_;
    std::vector<int64_t> lengths_;  ///< of the loader's samples
    std::vector<double> totals_;    ///< per step, of all ranks
    size_t taken_ = 0;
};

/// One optimizer step.
struct Step {
    double seconds = 0, cpu_seconds = 0;
    double flops = 0, loss = 0, pairs = 0;
    int64_t tokens = 0, real_tokens = 0, represented = 0, targets = 0;
};

/// The learner that is timed, and its micro-batches.
struct Stepping {
    const BenchmarkRun& run;
    Learner& learner;
    MicroBatches& micro_batches;
};

Step start_step(const Stepping& s, const Context& ctx) {
    const Config& c = s.run.session.config;
    const LearnerOptions& options = s.learner.options();
    const StepWork work{.lora = options.lora ? &*options.lora : nullptr,
                        .reference_forward = options.reference == Reference::base};
    Step step;
    s.learner.begin_step();
    for (int64_t i = 0; i < s.run.layout.accumulation; ++i) {
        const MicroBatches::Micro micro = s.micro_batches.next();
        s.learner.accumulate(ctx, micro.batch, {.total = micro.total, .last = i + 1 == s.run.layout.accumulation});
        step.flops += useful_flops(s.run.session.model, micro.batch, work);
        step.pairs += static_cast<double>(micro.batch.pairs.size());
        step.tokens += micro.batch.tokens_total();
        step.real_tokens += micro.batch.real_tokens;
        step.represented += micro.represented;
        step.targets += std::ssize(micro.batch.targets);
    }
    s.learner.update(ctx, adamw_settings(c), c.learning_rate, c.max_grad_norm);
    return step;
}

/// Runs steps and times each one. On the CPU a step lasts from the end of the previous step to its own end. On a GPU
/// events on the stream time it: the host reads the loss of a step after it has enqueued the next one, so that how far
/// the host is ahead does not matter.
std::vector<Step> run_steps(const Stepping& s, const Context& ctx, int64_t count) {
    using Clock = std::chrono::steady_clock;
    const int64_t ahead = ctx.gpu ? 1 : 0;
    std::vector<Step> steps;
    std::optional<GpuTimer> timer;
    if (ctx.gpu) {
        ctx.gpu->synchronize();
        timer.emplace(*ctx.gpu);
        timer->start();
    }
    auto last = Clock::now();
    std::clock_t last_cpu = std::clock();
    const auto end_step = [&](Step& step) {
        step.loss = s.learner.result().loss.mean();
        const auto now = Clock::now();
        const std::clock_t now_cpu = std::clock();
        step.seconds = std::chrono::duration<double>(now - last).count();
        step.cpu_seconds = static_cast<double>(now_cpu - last_cpu) / CLOCKS_PER_SEC;
        last = now;
        last_cpu = now_cpu;
    };
    for (int64_t i = 0; i < count + ahead; ++i) {
        if (i < count) {
            steps.push_back(start_step(s, ctx));
            if (timer) timer->stop();
            if (timer && i + 1 < count) timer->start();  // immediately, so that waiting for the host counts
        }
        if (i >= ahead && i - ahead < count) end_step(steps[static_cast<size_t>(i - ahead)]);
    }
    if (timer) {
        const std::vector<double> seconds = timer->seconds();
        for (size_t i = 0; i < steps.size(); ++i) steps[i].seconds = seconds[i];
    }
    return steps;
}

double median_of(const std::vector<Step>& steps, auto&& value) {
    std::vector<double> values;
    values.reserve(steps.size());
    for (const Step& step : steps) values.push_back(std::invoke(value, step));
    return median(std::move(values));
}

double total(const std::vector<Step>& steps, auto Step::*field) {
    double sum = 0;
    for (const Step& step : steps) sum += static_cast<double>(step.*field);
    return sum;
}

/// Milliseconds per step and share of the step's time, largest first. Time outside all phases comes last.
Json phase_table(const Profile& profile, const std::vector<Step>& steps) {
    const double all = total(steps, &Step::seconds);
    double claimed = 0;
    std::vector<std::pair<std::string, double>> phases(profile.seconds().begin(), profile.seconds().end());
    std::ranges::sort(phases, std::ranges::greater{}, &std::pair<std::string, double>::second);
    for (const auto& [name, seconds] : phases) claimed += seconds;
    phases.emplace_back("other", all - claimed);
    Json table;
    for (const auto& [name, seconds] : phases)
        table[name] = {{"ms", 1e3 * seconds / static_cast<double>(steps.size())}, {"share", seconds / all}};
    return table;
}

Json traffic_of_step(const HostTransfers::Traffic& traffic, const std::vector<Step>& steps) {
    const auto count = static_cast<double>(steps.size());
    return {{"gigabytes", 1e-9 * traffic.bytes / count}, {"ms", 1e3 * traffic.seconds / count}};
}

/// How long computation waits for copies.
double awaited_ms(const Profile& profile, const std::vector<Step>& steps) {
    double seconds = 0;
    for (const auto& [phase, time] : profile.seconds())
        if (phase.ends_with(" transfer")) seconds += time;
    return 1e3 * seconds / static_cast<double>(steps.size());
}

double tokens_per_second(const Step& s) {
    return static_cast<double>(s.real_tokens) / s.seconds;
}

double pairs_per_second(const Step& s) {
    return s.pairs / s.seconds;
}

/// On the CPU, the peak memory of the process. On a GPU, the arena, which is allocated whole before the first step;
/// memory of the libraries is not included.
size_t peak_memory(const Learner& learner, const Gpu* gpu) {
    if (gpu) return learner.arena().bytes();
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

Json memory_groups(const Arena& plan) {
    Json groups = Json::object();
    for (const auto& [name, bytes] : plan.groups()) groups[name] = bytes;
    return groups;
}

/// Figures of each rank and of all ranks together, and the cost of exchanging gradients: the time of a step beyond the
/// slowest rank's step without exchange, because the other ranks wait for that one anyway.
void add_ranks(Json& report, const std::vector<Step>& steps, const std::vector<Step>& alone, const Config& c,
               const Ranks& ranks) {
    const std::vector<double> all = ranks.sum(
        "figures",
        {median_of(steps, tokens_per_second), median_of(alone, tokens_per_second), median_of(steps, pairs_per_second)});
    const double alone_ms = 1e3 * median_of(alone, &Step::seconds);
    const std::vector<double> extremes = ranks.max("figures", {alone_ms, -alone_ms});
    report["ranks"] = ranks.size();
    report["zero_stage"] = c.zero_stage;
    report["grad_sync_dtype"] = spell(c.grad_sync_dtype);
    report["tokens_per_second_all"] = all[0];
    report["tokens_per_second_all_alone"] = all[1];
    if (all[2] > 0) report["pairs_per_second_all"] = all[2];
    report["step_ms_alone"] = extremes[0];
    report["step_ms_alone_fastest"] = -extremes[1];
    report["exposed_ms"] = report["step_ms"].get<double>() - extremes[0];
}

void add_figures(Json& report, const std::vector<Step>& steps, const Gpu* gpu) {
    const auto [fastest, slowest] = std::ranges::minmax_element(steps, {}, &Step::seconds);
    const double real = total(steps, &Step::real_tokens);
    const double flops = median_of(steps, [](const Step& s) { return s.flops / s.seconds; });
    const double peak = gpu ? gpu_rates(gpu->name()).bf16 : 0;
    report.update({{"steps", steps.size()},
                   {"step_ms", 1e3 * median_of(steps, &Step::seconds)},
                   {"step_ms_min", 1e3 * fastest->seconds},
                   {"step_ms_max", 1e3 * slowest->seconds},
                   {"step_cpu_ms", 1e3 * median_of(steps, &Step::cpu_seconds)},
                   {"tokens_per_second", median_of(steps, tokens_per_second)},
                   {"tokens_per_second_overall", real / total(steps, &Step::seconds)},
                   {"padding_share", 1 - real / total(steps, &Step::tokens)},
                   {"step_flops", median_of(steps, &Step::flops)},
                   {"tflops", 1e-12 * flops},
                   {"first_loss", steps.front().loss},
                   {"last_loss", steps.back().loss}});
    if (peak > 0) report["mfu"] = flops / peak;
}

/// Describes the run in the words of a config.
Json describe(const BenchmarkRun& run, const Learner& learner, const Gpu* gpu) {
    const Config& c = run.session.config;
    const std::optional<LoraSettings>& lora = learner.options().lora;
    Json report = {
        {"model", run.name},
        {"rows", run.description},
        {"stage", spell(c.stage)},
        {"device", gpu ? gpu->name() : "cpu"},
        {"threads", omp_get_max_threads()},
        {"compute", spell(c.compute)},
        {"optim", spell(c.optim)},
        {"optim_dtype", spell(c.optim_dtype)},
        {"offload_optimizer", c.offload_optimizer.value},
        {"offload_weights", learner.hosted_blocks()},
        {"base_quantization", spell(c.base_quantization)},
        {"gradient_checkpointing", spell(c.gradient_checkpointing)},
        {"offload_activations", learner.offloaded_blocks()},
        {"deterministic", c.deterministic},
        {"parameters", ParameterList(run.session.model).count()},
        {"trained_parameters", learner.parameters().count()},
        {"lora", lora ? Json{{"rank", lora->rank}, {"dropout", lora->dropout}, {"targets", lora->targets}} : Json()},
        {"packs", run.layout.per_device_batch},
        {"accumulation", run.layout.accumulation},
        {"length", c.packing_length}};
    if (learner.objective().needs_reference())
        report["reference"] = learner.options().reference == Reference::base ? "base"
                              : run.random_weights                           ? "constant"
                                                                             : "precomputed";
    return report;
}

}  // namespace

Json time_steps(BenchmarkRun& run, const StepCounts& counts, const Ranks& ranks) {
    const Session& session = run.session;
    const Config& c = session.config;
    const bool on_gpu = session.device == Device::cuda;
    const std::unique_ptr<Gpu> gpu = on_gpu ? std::make_unique<Gpu>(static_cast<int>(c.device_index)) : nullptr;
    const std::unique_ptr<Communicator> communicator =
        ranks.several() ? Communicator::join(ranks, gpu.get(), c.deterministic) : nullptr;
    const LearnerOptions options = learner_options(c, ranks, gpu.get(), communicator.get());
    const Arena plan = Learner::plan(session.model, options, session.device);
    Learner learner(session.model, options);
    const Context ctx = learner.context({.deterministic = c.deterministic});
    fill_weights_and_reference(run, learner, ctx, ranks);

    MicroBatches micro_batches(run, learner.objective(), ranks);
    const Stepping stepping{run, learner, micro_batches};
    run_steps(stepping, ctx, counts.warmup);
    std::optional<GpuMeter> meter;
    if (gpu) meter.emplace(cuda_devices().at(static_cast<size_t>(c.device_index)).uuid);
    const std::vector<Step> steps = run_steps(stepping, ctx, counts.timed);
    const GpuMeter::Means means = meter ? meter->stop() : GpuMeter::Means();
    // Phases are timed in extra steps on the rows of the timed ones, because their events sit between the kernels.
    Profile profile;
    micro_batches.go_to(counts.warmup);
    learner.transfers().start_timing();
    const std::vector<Step> profiled =
        run_steps(stepping, learner.context({.profile = &profile, .deterministic = c.deterministic}), counts.profiled);
    if (gpu) gpu->collect_phases(profile);
    const auto [to_device, to_host] = learner.transfers().stop_timing();
    std::vector<Step> alone;
    if (ranks.several()) {
        learner.set_exchange(false);
        micro_batches.go_to(0);
        run_steps(stepping, ctx, 1);
        micro_batches.go_to(counts.warmup);
        ranks.barrier("steps without exchange");
        alone = run_steps(stepping, ctx, counts.timed);
    }

    Json report = describe(run, learner, gpu.get());
    add_figures(report, steps, gpu.get());
    if (means.watts) report["watts"] = *means.watts;
    if (means.clock_mhz) report["clock_mhz"] = *means.clock_mhz;
    report.update({{"memory_planned_bytes", plan.bytes()},
                   {"memory_peak_bytes", peak_memory(learner, gpu.get())},
                   {"memory_host_bytes", learner.host_arena().bytes()},
                   {"memory_groups", memory_groups(plan)}});
    const double real = total(steps, &Step::real_tokens);
    if (!session.model.score_head) report["target_share"] = total(steps, &Step::targets) / real;
    if (!session.train.prefixes.order.empty()) {
        const double represented = total(steps, &Step::represented);  // unlike from row to row: no median
        report["represented_tokens_per_second"] = represented / total(steps, &Step::seconds);
        report["represented_per_token"] = represented / real;
    }
    if (run.has_pairs()) {
        report["pairs_per_second"] = median_of(steps, pairs_per_second);
        report["tokens_per_pair"] = real / total(steps, &Step::pairs);
    }
    if (ranks.several()) add_ranks(report, steps, alone, c, ranks);
    if (counts.profiled > 0) report["phases"] = phase_table(profile, profiled);
    if (to_device.bytes > 0)
        report["transfers"] = {{"to_device", traffic_of_step(to_device, profiled)},
                               {"to_host", traffic_of_step(to_host, profiled)},
                               {"awaited_ms", awaited_ms(profile, profiled)}};
    return report;
}

}  // namespace colonnade
