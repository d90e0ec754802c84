// bench_step: times whole optimizer steps on the CPU: forward, loss, backward, gradient norm, AdamW, on packed rows
// from the loader, as `train` runs them. Shape, batch and samples come from a training config, or the shape from
// --shape and samples of random length with it. Weights are random. docs/benchmarks.md says what each figure means.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "data/loader.h"
#include "engine/command_line.h"
#include "engine/files.h"
#include "engine/philox.h"
#include "engine/progress.h"
#include "train/learner.h"
#include "train/session.h"

using namespace colonnade;

namespace {

struct Options {
    std::string config, json;
    std::vector<int64_t> shape;  ///< hidden, ffn, layers, heads, kv_heads, head_dim, vocab
    int64_t packs = 8, length = 512, mean_length = 64;
    uint64_t seed = 42;
    int64_t steps = 20, warmup = 3;
};

/// What a step is made of.
struct Workload {
    ModelConfig model;
    TokenStore store;
    PackScheduleSettings schedule;
    LearnerOptions learner;
    AdamWSettings adamw{};
    double learning_rate = 1e-4, max_grad_norm = 1;
};

Workload from_config(const Options& o, const std::vector<std::string>& overrides) {
    Session session = open_session(load_config(o.config, overrides));
    const Config& c = session.config;
    return {.model = std::move(session.model),
            .store = std::move(session.train.store),
            .schedule = {.packing = train_packing(c),
                         .layout = {c.per_device_train_batch_size, c.gradient_accumulation_steps, 1},
                         .max_steps = o.warmup + o.steps},
            .learner = {.max_packs = c.per_device_train_batch_size,
                        .max_length = c.packing_length,
                        .head_chunk = c.head_chunk},
            .adamw = {c.adam_beta1, c.adam_beta2, c.adam_epsilon, c.weight_decay},
            .learning_rate = c.learning_rate,
            .max_grad_norm = c.max_grad_norm};
}

/// Random tokens in samples of log-normal length, every one of them learned; enough for all steps.
TokenStore random_samples(const Options& o, int64_t vocab) {
    constexpr double sigma = 0.7;
    const double mu = std::log(static_cast<double>(o.mean_length)) - sigma * sigma / 2;
    const Philox lengths{.seed = o.seed, .stream = 0}, tokens{.seed = o.seed, .stream = 1};
    const int64_t wanted = (o.warmup + o.steps) * o.packs * o.length;
    TokenStore store;
    for (uint64_t i = 0; store.tokens() < wanted; ++i) {
        const auto drawn = static_cast<int64_t>(std::llround(std::exp(mu + sigma * lengths.normal(i))));
        const auto length = static_cast<size_t>(std::clamp<int64_t>(drawn, 2, o.length));
        Sample sample{
            .tokens = std::vector<int32_t>(length), .weights = std::vector<float>(length, 1), .branch_begins = {0}};
        sample.weights[0] = 0;
        const auto begin = static_cast<uint64_t>(store.tokens());
        for (size_t t = 0; t < length; ++t)
            sample.tokens[t] = static_cast<int32_t>(tokens.below(begin + t, static_cast<uint64_t>(vocab)));
        store.add(sample, 0, static_cast<int64_t>(i) + 1);
    }
    return store;
}

Workload from_shape(const Options& o) {
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
    const Config defaults;
    return {.model = m,
            .store = random_samples(o, m.vocab_size),
            .schedule = {.packing = {.packing_length = o.length, .seed = o.seed},
                         .layout = {.per_device_batch = o.packs},
                         .max_steps = o.warmup + o.steps},
            .learner = {.max_packs = o.packs, .max_length = o.length, .head_chunk = defaults.head_chunk}};
}

/// One optimizer step.
struct Step {
    double seconds = 0, cpu_seconds = 0;
    double flops = 0;
    int64_t tokens = 0, real_tokens = 0, targets = 0;
};

/// Work that trains the model: 6 for each weight of a matmul that a token meets, 12 x head_dim for each query head and
/// visible pair. Padding has no part in it, and the head only runs on rows that carry a target.
double useful_flops(const ModelConfig& m, const Batch& batch) {
    const int64_t block =
        m.hidden_size * (m.qkv_width() + m.query_width() + 3 * m.intermediate_size) * m.num_hidden_layers;
    const int64_t head = m.hidden_size * m.vocab_size;
    const AttentionMasks masks(m, batch.mask);
    int64_t pairs = 0;
    for (int64_t l = 0; l < m.num_hidden_layers; ++l) pairs += masks.of_layer(l).plan.visible_pairs;
    return 6.0 * static_cast<double>(block * batch.real_tokens + head * std::ssize(batch.targets)) +
           12.0 * static_cast<double>(m.query_width() * pairs);
}

Step run_step(const Workload& w, Learner& learner, Loader& loader, const Context& ctx) {
    Step step;
    const auto timed = [&](auto&& work) {
        const auto start = std::chrono::steady_clock::now();
        const std::clock_t cpu = std::clock();
        work();
        step.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        step.cpu_seconds += static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
    };
    timed([&] { learner.zero_gradients(); });
    for (int64_t micro = 0; micro < w.schedule.layout.accumulation; ++micro) {
        std::optional<LoadedBatch> loaded;
        timed([&] {
            loaded = loader.next();
            learner.accumulate(ctx, loaded->batch, loaded->step_totals.weight);
        });
        step.flops += useful_flops(w.model, loaded->batch);
        step.tokens += loaded->batch.tokens_total();
        step.real_tokens += loaded->batch.real_tokens;
        step.targets += std::ssize(loaded->batch.targets);
    }
    timed([&] { learner.update(ctx, w.adamw, w.learning_rate, w.max_grad_norm); });
    return step;
}

template <typename Value>
double median(const std::vector<Step>& steps, Value&& value) {
    std::vector<double> values;
    for (const Step& step : steps) values.push_back(value(step));
    std::ranges::sort(values);
    const size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

int64_t total(const std::vector<Step>& steps, int64_t Step::*field) {
    int64_t sum = 0;
    for (const Step& step : steps) sum += step.*field;
    return sum;
}

/// Milliseconds of a step and share of its time, largest first; what no phase has claimed comes last.
Json phase_table(const Profile& profile, const std::vector<Step>& steps) {
    double all = 0, claimed = 0;
    for (const Step& step : steps) all += step.seconds;
    std::vector<std::pair<std::string, double>> phases(profile.seconds().begin(), profile.seconds().end());
    std::ranges::sort(phases, std::ranges::greater{}, &std::pair<std::string, double>::second);
    for (const auto& [name, seconds] : phases) claimed += seconds;
    phases.emplace_back("other", all - claimed);
    Json table;
    for (const auto& [name, seconds] : phases)
        table[name] = {{"ms", 1e3 * seconds / static_cast<double>(steps.size())}, {"share", seconds / all}};
    return table;
}

Json measure(const Workload& w, const Options& o) {
    Learner learner(w.model, w.learner);
    initialize(w.model, learner.parameters(), o.seed, learner.weights());
    Loader loader(w.store, PackSchedule(w.store.lengths(), w.schedule));
    Profile profile;
    const Context ctx{.device = Device::cpu, .profile = &profile};
    for (int64_t i = 0; i < o.warmup; ++i) run_step(w, learner, loader, ctx);
    profile.clear();
    std::vector<Step> steps;
    for (int64_t i = 0; i < o.steps; ++i) steps.push_back(run_step(w, learner, loader, ctx));

    const auto [fastest, slowest] = std::ranges::minmax_element(steps, {}, &Step::seconds);
    const auto tokens = static_cast<double>(total(steps, &Step::tokens)),
               real = static_cast<double>(total(steps, &Step::real_tokens));
    return {{"parameters", learner.parameters().count()},
            {"threads", omp_get_max_threads()},
            {"packs_per_step", w.schedule.layout.packs_per_step()},
            {"packing_length", w.schedule.packing.packing_length},
            {"steps", o.steps},
            {"step_ms", 1e3 * median(steps, [](const Step& s) { return s.seconds; })},
            {"step_ms_min", 1e3 * fastest->seconds},
            {"step_ms_max", 1e3 * slowest->seconds},
            {"step_cpu_ms", 1e3 * median(steps, [](const Step& s) { return s.cpu_seconds; })},
            {"tokens_per_second",
             median(steps, [](const Step& s) { return static_cast<double>(s.real_tokens) / s.seconds; })},
            {"padding_share", 1 - real / tokens},
            {"target_share", static_cast<double>(total(steps, &Step::targets)) / real},
            {"gflops", 1e-9 * median(steps, [](const Step& s) { return s.flops / s.seconds; })},
            {"memory_bytes", learner.arena().bytes()},
            {"phases", phase_table(profile, steps)}};
}

void print(const Json& r, const ModelConfig& m) {
    const auto number = [&](const char* key) { return r[key].get<double>(); };
    const auto line = [](const char* what, const std::string& value) { fmt::print("{:<9} {}\n", what, value); };
    line("model", fmt::format("{}, {} layers of {}, ffn {}, {} heads ({} kv) of {}, vocabulary {}: {} parameters",
                              name_of(m.architecture), m.num_hidden_layers, m.hidden_size, m.intermediate_size,
                              m.num_attention_heads, m.num_key_value_heads, m.head_dim, m.vocab_size,
                              human_count(number("parameters"))));
    line("batch", fmt::format("{} packs of {}, {:.1f} % padding; {:.1f} % of the real tokens are targets",
                              number("packs_per_step"), number("packing_length"), 100 * number("padding_share"),
                              100 * number("target_share")));
    line("step", fmt::format("{:.1f} ms (median of {}, {:.1f} to {:.1f}) on {} threads, {:.1f} ms of CPU time",
                             number("step_ms"), number("steps"), number("step_ms_min"), number("step_ms_max"),
                             number("threads"), number("step_cpu_ms")));
    line("speed", fmt::format("{:.0f} real tokens/s, {:.1f} GFLOP/s", number("tokens_per_second"), number("gflops")));
    line("memory", human_bytes(r["memory_bytes"].get<size_t>()));
    fmt::print("\n{:<14}{:>9}{:>9}\n", "phase", "ms", "share");
    for (const auto& [name, phase] : r["phases"].items())
        fmt::print("{:<14}{:>9.2f}{:>8.1f}%\n", name, phase["ms"].get<double>(), 100 * phase["share"].get<double>());
}

void declare(CLI::App& app, Options& o) {
    const auto at_least = [](int64_t n) { return CLI::Range(n, int64_t{1} << 30); };
    auto* config = app.add_option("config", o.config, "YAML file of a training run");
    auto* shape =
        app.add_option("--shape", o.shape, "without a config: hidden,ffn,layers,heads,kv_heads,head_dim,vocab")
            ->delimiter(',')
            ->expected(7)
            ->excludes(config);
    app.add_option("--packs", o.packs, "of a step, with --shape")
        ->needs(shape)
        ->check(at_least(1))
        ->capture_default_str();
    app.add_option("--length", o.length, "of a pack, with --shape")
        ->needs(shape)
        ->check(at_least(2))
        ->capture_default_str();
    app.add_option("--mean-length", o.mean_length, "of the samples (log-normal), with --shape")
        ->needs(shape)
        ->check(at_least(2))
        ->capture_default_str();
    app.add_option("--random-seed", o.seed, "of weights and samples")->capture_default_str();
    app.add_option("--steps", o.steps, "timed, the median counts")->check(at_least(1))->capture_default_str();
    app.add_option("--warmup", o.warmup, "steps before them")->check(at_least(0))->capture_default_str();
    app.add_option("--json", o.json, "write the results to this file, or - for stdout");
    app.allow_extras();
    app.footer("Any key of the config can be given as key=value.");
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app("Times optimizer steps on the CPU and says where the time goes");
    declare(app, options);
    return run_command("bench_step", app, argc, argv, [&] {
        if (options.config.empty() && options.shape.empty())
            fail(Exit::config, "give a config or --shape; usage: bench_step CONFIG.yaml [key=value ...]");
        if (options.config.empty() && !app.remaining().empty())
            fail(Exit::config, "{}: keys need a config, --shape takes none", app.remaining().front());
        const Workload workload = options.shape.empty() ? from_config(options, app.remaining()) : from_shape(options);
        const Json report = measure(workload, options);
        if (options.json == "-") {
            fmt::print("{}\n", report.dump(2));
            return 0;
        }
        print(report, workload.model);
        if (!options.json.empty()) write_file_atomically(options.json, report.dump(2) + "\n");
        return 0;
    });
}
