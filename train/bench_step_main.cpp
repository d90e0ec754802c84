// bench_step: times whole optimizer steps, on the CPU or a GPU: forward, loss, backward, gradient norm, AdamW, on packed
// rows, as `train` runs them. What is run is a training config, or a shape (of a published model by name, or given by
// numbers) on rows of stated document lengths. Weights are random. Under mpirun every rank takes packs of its own, and the
// exchange of gradients is measured by leaving it out. docs/benchmarks.md says what each figure means.

#include <omp.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "data/loader.h"
#include "engine/command_line.h"
#include "engine/files.h"
#include "engine/progress.h"
#include "train/config_values.h"
#include "train/learner.h"
#include "train/model_shapes.h"
#include "train/session.h"
#include "train/step_flops.h"
#include "train/step_workload.h"

using namespace colonnade;

namespace {

struct Options {
    std::string config, model, lengths, json;
    std::vector<int64_t> shape;  ///< hidden, ffn, layers, heads, kv_heads, head_dim, vocab
    int64_t packs = 1, length = 2048, accumulation = 1, mean_length = 0;
    int64_t lora_rank = 0;  ///< 0: full training
    double lora_dropout = 0;
    std::vector<std::string> lora_target = lora_modules();
    Config machine;  ///< with a shape: where and how to run
    uint64_t seed = 42;
    int64_t steps = 20, warmup = 3, profiled = 3;
    bool plan = false;

    int64_t all_steps() const { return warmup + steps + profiled; }
};

/// What a step is made of. Micro-batches are either in `batches`, in order, again from the first after the last, or
/// come from `store` as `schedule` says.
struct Workload {
    Config config;  ///< where and how to run
    Device device = Device::cpu;
    ModelConfig model{};
    std::string name{}, rows{};  ///< of the model and its packs, in words
    StepLayout layout{};
    int64_t max_length = 0;
    std::vector<Batch> batches{};
    TokenStore store{};
    PackScheduleSettings schedule{};
    AdamWSettings adamw{};
    std::optional<LoraSettings> lora{};
    double learning_rate = 1e-4, max_grad_norm = 1;
};

Workload from_config(const Options& o, const std::vector<std::string>& overrides, const Ranks& ranks) {
    Session session = open_session(load_config(o.config, overrides), ranks);
    const Config& c = session.config;
    Workload w{.config = c, .device = session.device, .model = std::move(session.model)};
    w.name = name_of(w.model.architecture);
    w.rows = "samples of " + o.config;
    w.layout = {c.per_device_train_batch_size, c.gradient_accumulation_steps, ranks.size()};
    w.max_length = c.packing_length;
    w.store = std::move(session.train.store);
    w.schedule = {.packing = train_packing(c), .layout = w.layout, .max_steps = o.all_steps()};
    w.adamw = {c.adam_beta1, c.adam_beta2, c.adam_epsilon, c.weight_decay};
    w.learning_rate = c.learning_rate;
    w.max_grad_norm = c.max_grad_norm;
    w.lora = lora_settings(c);
    return w;
}

ModelConfig shape_of(const Options& o) {
    if (!o.model.empty()) return model_shape(o.model);
    ModelConfig m;
    m.hidden_size = o.shape[0];
    m.intermediate_size = o.shape[1];
    m.num_hidden_layers = o.shape[2];
    m.num_attention_heads = o.shape[3];
    m.num_key_value_heads = o.shape[4];
    m.head_dim = o.shape[5];
    m.vocab_size = o.shape[6];
    m.tie_word_embeddings = true;
    m.windows.assign(static_cast<size_t>(std::max<int64_t>(m.num_hidden_layers, 0)), 0);
    validate(m, "--shape");
    return m;
}

std::optional<LoraSettings> lora_of(const Options& o) {
    if (o.lora_rank == 0) return std::nullopt;
    return LoraSettings{.rank = o.lora_rank,
                        .alpha = 2 * static_cast<double>(o.lora_rank),
                        .dropout = o.lora_dropout,
                        .targets = {o.lora_target.begin(), o.lora_target.end()}};
}

/// The memory plan of a shape, for each of so many ranks, on a device that need not be there.
std::string plan_of(const Options& o, const Ranks& ranks) {
    const Device device = o.machine.device == DeviceChoice::cuda ? Device::cuda : Device::cpu;
    Config c = o.machine;
    settle_device(c, device);
    const LearnerOptions options{
        .max_packs = o.packs,
        .max_length = o.length,
        .head_chunk = c.head_chunk,
        .moments = c.optim_dtype,
        .recompute = c.gradient_checkpointing,
        .lora = lora_of(o),
        .sync = {.ranks = ranks.size(), .rank = ranks.rank(), .zero_stage = c.zero_stage, .wire = c.grad_sync_dtype}};
    return Learner::plan(shape_of(o), options, device).table();
}

Workload from_shape(const Options& o, const Ranks& ranks) {
    Workload w{.config = o.machine, .model = shape_of(o)};
    if (!ranks.several()) w.config.threads = omp_get_max_threads();
    w.device = settle_machine(w.config, ranks);
    w.name = o.model.empty() ? name_of(w.model.architecture) : o.model;
    w.layout = {o.packs, o.accumulation, ranks.size()};
    w.max_length = o.length;
    w.adamw = {.beta2 = 0.95, .weight_decay = 0.01};  // as scripts/peer_step.py has it
    w.lora = lora_of(o);
    if (o.mean_length > 0) {
        w.rows = fmt::format("log-normal lengths, {} on average", o.mean_length);
        w.store = random_samples({.mean_length = o.mean_length,
                                  .max_length = o.length,
                                  .tokens = o.all_steps() * w.layout.packs_per_step() * o.length,
                                  .vocab = w.model.vocab_size,
                                  .seed = o.seed});
        w.schedule = {
            .packing = {.packing_length = o.length, .seed = o.seed}, .layout = w.layout, .max_steps = o.all_steps()};
        return w;
    }
    const RowLengths rows = o.lengths.empty() ? RowLengths{{o.length}} : read_row_lengths(o.lengths);
    w.rows = o.lengths.empty() ? "one document per pack" : "rows of " + o.lengths;
    w.max_length = longest_row(rows);
    for (int64_t i = 0; i < o.all_steps() * o.accumulation; ++i) {
        const int64_t of_all = i * ranks.size() + ranks.rank();
        w.batches.push_back(random_batch(rows, of_all * o.packs, o.packs, w.model.vocab_size,
                                         Philox{o.seed, static_cast<uint64_t>(of_all)}));
    }
    return w;
}

/// Micro-batches in order, and the weight of the step that each belongs to.
class MicroBatches {
  public:
    MicroBatches(const Workload& workload, const Ranks& ranks) : workload_(workload) {
        if (workload.batches.empty()) {
            loader_.emplace(workload.store, PackSchedule(workload.store.lengths(), workload.schedule),
                            LoaderOptions{.rank = ranks.rank()});
            return;
        }
        const auto of_step = static_cast<size_t>(workload.layout.accumulation);
        for (size_t i = 0; i < workload.batches.size(); ++i) {
            if (i % of_step == 0) step_weights_.push_back(0);
            step_weights_.back() += workload.batches[i].target_weight;
        }
        step_weights_ = ranks.sum("target weights", step_weights_);
    }
    struct Micro {
        const Batch& batch;
        double step_weight;
    };
    Micro next() {
        if (loader_) {
            loaded_ = loader_->next();
            return {loaded_->batch, loaded_->step_totals.weight};
        }
        const auto of_step = static_cast<size_t>(workload_.layout.accumulation);
        const size_t at = taken_++ % workload_.batches.size();
        return {workload_.batches[at], step_weights_[at / of_step]};
    }

  private:
    const Workload& workload_;
    std::optional<Loader> loader_;
    std::optional<LoadedBatch> loaded_;
    std::vector<double> step_weights_;  ///< of all ranks
    size_t taken_ = 0;
};

/// One optimizer step.
struct Step {
    double seconds = 0, cpu_seconds = 0;
    double flops = 0, loss = 0;
    int64_t tokens = 0, real_tokens = 0, targets = 0;
};

Step start_step(const Workload& w, Learner& learner, MicroBatches& micro_batches, const Context& ctx) {
    Step step;
    learner.zero_gradients();
    for (int64_t i = 0; i < w.layout.accumulation; ++i) {
        const MicroBatches::Micro micro = micro_batches.next();
        learner.accumulate(ctx, micro.batch, micro.step_weight, i + 1 == w.layout.accumulation);
        step.flops += useful_flops(w.model, micro.batch, w.lora ? &*w.lora : nullptr);
        step.tokens += micro.batch.tokens_total();
        step.real_tokens += micro.batch.real_tokens;
        step.targets += std::ssize(micro.batch.targets);
    }
    learner.update(ctx, w.adamw, w.learning_rate, w.max_grad_norm);
    return step;
}

/// Runs steps, each timed from the end of the one before it to its own end. On a GPU the host asks for the end of a
/// step only when it has enqueued the next one, so that the GPU never waits for it.
std::vector<Step> run_steps(const Workload& w, Learner& learner, MicroBatches& micro_batches, const Context& ctx,
                            int64_t count) {
    using Clock = std::chrono::steady_clock;
    const int64_t ahead = ctx.gpu ? 1 : 0;
    std::vector<Step> steps;
    if (ctx.gpu) ctx.gpu->synchronize();
    auto last = Clock::now();
    std::clock_t last_cpu = std::clock();
    const auto end_step = [&](Step& step) {
        step.loss = learner.result().loss.mean();
        const auto now = Clock::now();
        const std::clock_t now_cpu = std::clock();
        step.seconds = std::chrono::duration<double>(now - last).count();
        step.cpu_seconds = static_cast<double>(now_cpu - last_cpu) / CLOCKS_PER_SEC;
        last = now;
        last_cpu = now_cpu;
    };
    for (int64_t i = 0; i < count + ahead; ++i) {
        if (i < count) steps.push_back(start_step(w, learner, micro_batches, ctx));
        if (i >= ahead && i - ahead < count) end_step(steps[static_cast<size_t>(i - ahead)]);
    }
    if (ctx.gpu) ctx.gpu->synchronize();
    return steps;
}

template <typename Value>
double median(const std::vector<Step>& steps, Value&& value) {
    std::vector<double> values;
    for (const Step& step : steps) values.push_back(value(step));
    std::ranges::sort(values);
    const size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double total(const std::vector<Step>& steps, auto Step::*field) {
    double sum = 0;
    for (const Step& step : steps) sum += static_cast<double>(step.*field);
    return sum;
}

/// Milliseconds of a step and share of its time, largest first; what no phase has claimed comes last.
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

/// Most memory the process ever held, on the CPU. A GPU's arena is allocated whole before the first step, and what
/// libraries take beside it is the driver's to tell.
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

Json measure(const Workload& w, const Options& o, const Ranks& ranks) {
    const bool on_gpu = w.device == Device::cuda;
    const std::unique_ptr<Gpu> gpu = on_gpu ? std::make_unique<Gpu>(static_cast<int>(w.config.device_index)) : nullptr;
    const std::unique_ptr<Communicator> communicator =
        ranks.several() ? Communicator::join(ranks, gpu.get(), w.config.deterministic) : nullptr;
    const LearnerOptions options{.max_packs = w.layout.per_device_batch,
                                 .max_length = w.max_length,
                                 .head_chunk = w.config.head_chunk,
                                 .moments = w.config.optim_dtype,
                                 .recompute = w.config.gradient_checkpointing,
                                 .gpu = gpu.get(),
                                 .seed = o.seed,
                                 .lora = w.lora,
                                 .sync = {.communicator = communicator.get(),
                                          .ranks = ranks.size(),
                                          .rank = ranks.rank(),
                                          .zero_stage = w.config.zero_stage,
                                          .wire = w.config.grad_sync_dtype}};
    const Arena plan = Learner::plan(w.model, options, w.device);
    Learner learner(w.model, options);
    if (w.lora) {
        learner.fill_base([&](const Parameter& p, const Tensor& into) {
            ParameterList one;
            one.add(p.name, p.shape);
            initialize(w.model, one, o.seed + static_cast<uint64_t>(p.begin), into);
        });
        learner.fill_weights([&](const Tensor& flat) { initialize_lora(learner.parameters(), o.seed, flat); });
    } else {
        learner.fill_weights([&](const Tensor& flat) { initialize(w.model, learner.parameters(), o.seed, flat); });
    }

    MicroBatches micro_batches(w, ranks);
    const Context ctx = learner.context(nullptr, w.config.deterministic);
    run_steps(w, learner, micro_batches, ctx, o.warmup);
    const std::vector<Step> steps = run_steps(w, learner, micro_batches, ctx, o.steps);
    // Steps of their own: the events that time phases stand between the kernels.
    Profile profile;
    const std::vector<Step> profiled =
        run_steps(w, learner, micro_batches, learner.context(&profile, w.config.deterministic), o.profiled);
    if (gpu) gpu->collect_phases(profile);
    std::vector<Step> alone;
    if (ranks.several()) {
        learner.set_exchange(false);
        run_steps(w, learner, micro_batches, ctx, 1);
        ranks.barrier("steps without exchange");
        alone = run_steps(w, learner, micro_batches, ctx, o.steps);
    }

    const auto [fastest, slowest] = std::ranges::minmax_element(steps, {}, &Step::seconds);
    const double real = total(steps, &Step::real_tokens);
    const double flops = median(steps, [](const Step& s) { return s.flops / s.seconds; });
    const double peak = gpu ? dense_bf16_peak(gpu->name()) : 0;
    Json report = {
        {"model", w.name},
        {"rows", w.rows},
        {"device", gpu ? gpu->name() : "cpu"},
        {"threads", omp_get_max_threads()},
        {"optim_dtype", spell(w.config.optim_dtype)},
        {"gradient_checkpointing", spell(w.config.gradient_checkpointing)},
        {"deterministic", w.config.deterministic},
        {"parameters", ParameterList(w.model).count()},
        {"trained_parameters", learner.parameters().count()},
        {"lora",
         w.lora ? Json{{"rank", w.lora->rank}, {"dropout", w.lora->dropout}, {"targets", w.lora->targets}} : Json()},
        {"packs", w.layout.per_device_batch},
        {"accumulation", w.layout.accumulation},
        {"length", w.max_length},
        {"steps", o.steps},
        {"step_ms", 1e3 * median(steps, [](const Step& s) { return s.seconds; })},
        {"step_ms_min", 1e3 * fastest->seconds},
        {"step_ms_max", 1e3 * slowest->seconds},
        {"step_cpu_ms", 1e3 * median(steps, [](const Step& s) { return s.cpu_seconds; })},
        {"tokens_per_second",
         median(steps, [](const Step& s) { return static_cast<double>(s.real_tokens) / s.seconds; })},
        {"tokens_per_second_overall", real / total(steps, &Step::seconds)},
        {"padding_share", 1 - real / total(steps, &Step::tokens)},
        {"target_share", total(steps, &Step::targets) / real},
        {"step_flops", median(steps, [](const Step& s) { return s.flops; })},
        {"tflops", 1e-12 * flops},
        {"first_loss", steps.front().loss},
        {"last_loss", steps.back().loss},
        {"memory_planned_bytes", plan.bytes()},
        {"memory_peak_bytes", peak_memory(learner, gpu.get())},
        {"memory_groups", memory_groups(plan)}};
    if (ranks.several()) {
        const auto seconds = [](const Step& s) { return s.seconds; };
        const double step_ms = 1e3 * median(steps, seconds), alone_ms = 1e3 * median(alone, seconds);
        const double own = report["tokens_per_second"].get<double>();
        const double own_alone =
            median(alone, [](const Step& s) { return static_cast<double>(s.real_tokens) / s.seconds; });
        const std::vector<double> all = ranks.sum("figures", {own, own_alone});
        report["ranks"] = ranks.size();
        report["zero_stage"] = w.config.zero_stage;
        report["grad_sync_dtype"] = spell(w.config.grad_sync_dtype);
        report["tokens_per_second_all"] = all[0];
        report["tokens_per_second_all_alone"] = all[1];
        report["step_ms_alone"] = alone_ms;
        report["exposed_ms"] = step_ms - alone_ms;
    }
    if (peak > 0) report["mfu"] = flops / peak;
    if (o.profiled > 0) report["phases"] = phase_table(profile, profiled);
    return report;
}

void print(const Json& r, const ModelConfig& m) {
    const auto number = [&](const char* key) { return r[key].get<double>(); };
    const auto text = [&](const char* key) { return r[key].get<std::string>(); };
    const auto line = [](const char* what, const std::string& value) { fmt::print("{:<9} {}\n", what, value); };
    const bool gpu = text("device") != "cpu";
    line("model",
         fmt::format("{}, {} layers of {}, ffn {}, {} heads ({} kv) of {}, vocabulary {}: {} parameters", text("model"),
                     m.num_hidden_layers, m.hidden_size, m.intermediate_size, m.num_attention_heads,
                     m.num_key_value_heads, m.head_dim, m.vocab_size, human_count(number("parameters"))));
    if (const Json& lora = r["lora"]; !lora.is_null())
        line("lora",
             fmt::format("rank {}, dropout {}, on {}: {} parameters are trained", lora["rank"].dump(),
                         lora["dropout"].dump(), lora["targets"].dump(), human_count(number("trained_parameters"))));
    line("batch", fmt::format("{} x {} packs of {}, {}; {:.1f} % padding, {:.1f} % of the real tokens are targets",
                              number("accumulation"), number("packs"), number("length"), text("rows"),
                              100 * number("padding_share"), 100 * number("target_share")));
    line("device",
         gpu ? fmt::format("{}, moments {}, recomputed: {}{}", text("device"), text("optim_dtype"),
                           text("gradient_checkpointing"), r["deterministic"] ? ", deterministic" : "")
             : fmt::format("{} threads, {:.1f} ms of CPU time a step", number("threads"), number("step_cpu_ms")));
    line("step", fmt::format("{:.1f} ms (median of {}, {:.1f} to {:.1f}); loss {:.4f}, then {:.4f}", number("step_ms"),
                             number("steps"), number("step_ms_min"), number("step_ms_max"), number("first_loss"),
                             number("last_loss")));
    const double tflops = number("tflops");
    line("speed", fmt::format("{:.0f} real tokens/s, {}{}", number("tokens_per_second"),
                              gpu ? fmt::format("{:.1f} TFLOP/s", tflops) : fmt::format("{:.1f} GFLOP/s", 1e3 * tflops),
                              r.contains("mfu") ? fmt::format(", MFU {:.1f} %", 100 * number("mfu")) : ""));
    if (r.contains("ranks"))
        line("ranks",
             fmt::format("{}: {:.0f} real tokens/s in all, {:.1f} % of as many on their own; {:.1f} ms a step without "
                         "exchange (zero_stage {}, {}): {:.1f} ms of it are exposed",
                         number("ranks"), number("tokens_per_second_all"),
                         100 * number("tokens_per_second_all") / number("tokens_per_second_all_alone"),
                         number("step_ms_alone"), number("zero_stage"), text("grad_sync_dtype"), number("exposed_ms")));
    line("memory", fmt::format("{} planned, {} at most", human_bytes(r["memory_planned_bytes"].get<size_t>()),
                               human_bytes(r["memory_peak_bytes"].get<size_t>())));
    if (!r.contains("phases")) return;
    fmt::print("\n{:<14}{:>9}{:>9}\n", "phase", "ms", "share");
    for (const auto& [name, phase] : r["phases"].items())
        fmt::print("{:<14}{:>9.2f}{:>8.1f}%\n", name, phase["ms"].get<double>(), 100 * phase["share"].get<double>());
}

void declare(CLI::App& app, Options& o) {
    const auto at_least = [](int64_t n) { return CLI::Range(n, int64_t{1} << 30); };
    auto* what = app.add_option_group("what to run");
    auto* config = what->add_option("config", o.config, "YAML file of a training run");
    what->add_option("--model", o.model, fmt::format("a published shape: {}", fmt::join(model_shape_names(), ", ")));
    what->add_option("--shape", o.shape, "any other: hidden,ffn,layers,heads,kv_heads,head_dim,vocab")
        ->delimiter(',')
        ->expected(7);
    what->require_option(1);
    // Of a shape only: a config has keys for them.
    const auto of_shape = [&](CLI::Option* option) { return option->excludes(config)->capture_default_str(); };
    of_shape(app.add_option("--packs", o.packs, "rows of a micro-step")->check(at_least(1)));
    of_shape(app.add_option("--accumulation", o.accumulation, "micro-steps of a step")->check(at_least(1)));
    auto* length = app.add_option("--length", o.length, "of a row: one document fills it")->check(at_least(2));
    auto* mean = app.add_option("--mean-length", o.mean_length, "instead packed samples of log-normal length");
    auto* lengths = app.add_option("--lengths", o.lengths, "instead a file: a line per row, lengths of its documents");
    of_shape(length);
    of_shape(mean->check(at_least(2)));
    of_shape(lengths->excludes(length)->excludes(mean));
    // The words that a config has for them.
    const auto choice = [&]<typename E>(const char* name, E& value, const char* help) {
        std::vector<std::string> words;
        for (const Spelling<E>& s : spellings<E>) words.emplace_back(s.name);
        const auto set = [&value](const std::string& word) {
            for (const Spelling<E>& s : spellings<E>)
                if (word == s.name) value = s.value;
        };
        app.add_option_function<std::string>(name, set, help)->check(CLI::IsMember(words))->excludes(config);
    };
    choice("--device", o.machine.device, "auto: a GPU where there is one");
    choice("--optim-dtype", o.machine.optim_dtype, "AdamW's moments on a GPU, default float32");
    choice("--grad-sync-dtype", o.machine.grad_sync_dtype, "under mpirun: what gradients travel in, default float32");
    app.add_option("--zero-stage", o.machine.zero_stage, "under mpirun: 1 shards optimizer state")
        ->check(CLI::Range(0, 1))
        ->excludes(config);
    choice("--gradient-checkpointing", o.machine.gradient_checkpointing, "default none");
    app.add_flag("--deterministic", o.machine.deterministic, "on a GPU: the same bits in every run")->excludes(config);
    app.add_option("--head-chunk", o.machine.head_chunk, "rows whose logits are held at once, default as train has it")
        ->check(at_least(1))
        ->excludes(config);
    auto* rank = app.add_option("--lora-rank", o.lora_rank, "train adapters of this rank, not the whole model")
                     ->check(at_least(1))
                     ->excludes(config);
    app.add_option("--lora-target", o.lora_target, "layers with adapters, default all")
        ->delimiter(',')
        ->check(CLI::IsMember(lora_modules()))
        ->needs(rank);
    app.add_option("--lora-dropout", o.lora_dropout, "default 0")->check(CLI::Range(0.0, 0.99))->needs(rank);
    app.add_option("--random-seed", o.seed, "of weights and samples")->capture_default_str();
    app.add_option("--steps", o.steps, "timed, the median counts")->check(at_least(1))->capture_default_str();
    app.add_option("--warmup", o.warmup, "steps before them")->check(at_least(0))->capture_default_str();
    app.add_option("--profile", o.profiled, "steps after them that tell phases apart")
        ->check(at_least(0))
        ->capture_default_str();
    app.add_flag("--plan", o.plan, "print the memory plan for --device, which need not be there, and stop")
        ->excludes(config);
    app.add_option("--json", o.json, "write the results to this file, or - for stdout");
    app.allow_extras();
    app.footer("Any key of the config can be given as key=value.");
}

int run(const Options& options, const std::vector<std::string>& overrides, const Ranks& ranks) {
    if (options.plan) {
        if (ranks.first()) fmt::print("{}", plan_of(options, ranks));
        return 0;
    }
    std::optional<Workload> workload;
    ranks.together("start", [&] {
        workload = options.config.empty() ? from_shape(options, ranks) : from_config(options, overrides, ranks);
    });
    const Json report = measure(*workload, options, ranks);
    if (!ranks.first()) return 0;
    if (options.json == "-") {
        fmt::print("{}\n", report.dump(2));
        return 0;
    }
    print(report, workload->model);
    if (!options.json.empty()) write_file_atomically(options.json, report.dump(2) + "\n");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app("Times optimizer steps and says where the time goes");
    declare(app, options);
    return run_command("bench_step", app, argc, argv, [&] {
        if (options.config.empty() && !app.remaining().empty())
            fail(Exit::config, "{}: keys need a config, a shape takes none", app.remaining().front());
        Ranks ranks("bench_step");
        return ranks.guard([&] { return run(options, app.remaining(), ranks); });
    });
}
