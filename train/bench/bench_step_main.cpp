// bench_step: times whole optimizer steps, on the CPU or a GPU: forward, loss, backward, gradient norm, AdamW, on packed
// rows, as `train` runs them, in every stage. What is run is a training config, or a shape (of a published model by name,
// or given by numbers) on rows of stated document lengths or pairs of answers. Under mpirun every rank takes packs of its
// own, and the exchange of gradients is measured by leaving it out. docs/benchmarks.md says what each figure means.

#include "engine/device/human_units.h"
#include "engine/io/command_line.h"
#include "engine/io/files.h"
#include "engine/io/progress.h"
#include "train/bench/model_shapes.h"
#include "train/bench/step_timing.h"
#include "train/config/config_values.h"

using namespace colonnade;

namespace {

struct Options {
    std::string config, json;
    ShapeRequest shape;  ///< where there is no config
    StepCounts steps;
    bool plan = false;
};

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
    if (r.contains("tokens_per_pair"))
        line("stage", fmt::format("{}{}", text("stage"),
                                  r.contains("reference") ? ", reference " + text("reference") : std::string()));
    line("batch", fmt::format("{} x {} packs of {}, {}; {:.1f} % padding{}", number("accumulation"), number("packs"),
                              number("length"), text("rows"), 100 * number("padding_share"),
                              r.contains("target_share") ? fmt::format(", {:.1f} % of the real tokens are targets",
                                                                       100 * number("target_share"))
                                                         : ""));
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
    if (r.contains("tokens_per_pair"))
        line("pairs",
             fmt::format(
                 "{:.2f} pairs/s, {:.1f} real tokens each{}", number("pairs_per_second"), number("tokens_per_pair"),
                 r.contains("ranks") ? fmt::format("; {:.2f} pairs/s in all", number("pairs_per_second_all")) : ""));
    if (r.contains("ranks"))
        line(
            "ranks",
            fmt::format("{}: {:.0f} real tokens/s in all, {:.1f} % of as many on their own; {:.1f} to {:.1f} ms a step "
                        "without exchange (zero_stage {}, {}): {:.1f} ms of it are exposed",
                        number("ranks"), number("tokens_per_second_all"),
                        100 * number("tokens_per_second_all") / number("tokens_per_second_all_alone"),
                        number("step_ms_alone_fastest"), number("step_ms_alone"), number("zero_stage"),
                        text("grad_sync_dtype"), number("exposed_ms")));
    line("memory", fmt::format("{} planned, {} at most", human_bytes(r["memory_planned_bytes"].get<size_t>()),
                               human_bytes(r["memory_peak_bytes"].get<size_t>())));
    if (!r.contains("phases")) return;
    fmt::print("\n{:<14}{:>9}{:>9}\n", "phase", "ms", "share");
    for (const auto& [name, phase] : r["phases"].items())
        fmt::print("{:<14}{:>9.2f}{:>8.1f}%\n", name, phase["ms"].get<double>(), 100 * phase["share"].get<double>());
}

void declare_shape(CLI::App& app, Options& o, CLI::Option* config) {
    const auto at_least = [](int64_t n) { return CLI::Range(n, int64_t{1} << 30); };
    // A config has keys for all of this.
    const auto of_shape = [&](CLI::Option* option) { return option->excludes(config); };
    ShapeRequest& shape = o.shape;
    Config& c = shape.config;
    // The words that a config has for them.
    const auto choice = [&]<typename E>(const char* name, E& value, std::vector<std::string> words, const char* help) {
        const auto set = [&value](const std::string& word) {
            for (const Spelling<E>& s : spellings<E>)
                if (word == s.name) value = s.value;
        };
        if (words.empty())
            for (const Spelling<E>& s : spellings<E>) words.emplace_back(s.name);
        return of_shape(app.add_option_function<std::string>(name, set, help)->check(CLI::IsMember(words)));
    };
    c.packing_length = 2048;
    of_shape(app.add_option("--packs", c.per_device_train_batch_size, "rows of a micro-step"))
        ->check(at_least(1))
        ->capture_default_str();
    of_shape(app.add_option("--accumulation", c.gradient_accumulation_steps, "micro-steps of a step"))
        ->check(at_least(1))
        ->capture_default_str();
    auto* length = of_shape(app.add_option("--length", c.packing_length, "of a row: one document fills it"))
                       ->check(at_least(2))
                       ->capture_default_str();
    auto* mean =
        of_shape(app.add_option("--mean-length", shape.mean_length, "instead packed samples of log-normal length"))
            ->check(at_least(2));
    auto* lengths =
        of_shape(app.add_option("--lengths", shape.lengths, "instead a file: a line per row, lengths of its documents"))
            ->excludes(length)
            ->excludes(mean);
    auto* stage =
        choice("--stage", c.stage, {"dpo", "rm"},
               "learns from pairs, packed into rows; the log-probabilities of dpo's reference are constants, as if "
               "computed before")
            ->excludes(mean)
            ->excludes(lengths);
    auto* pairs = of_shape(app.add_option("--pair-lengths", shape.pair_lengths, "tokens of prompt,chosen,rejected"))
                      ->delimiter(',')
                      ->expected(3)
                      ->check(at_least(1))
                      ->needs(stage);
    stage->needs(pairs);
    of_shape(app.add_flag("--repeat-prompts", shape.repeat_prompts,
                          "each answer has a prompt of its own: what sharing it saves"))
        ->needs(stage);
    choice("--device", c.device, {}, "auto: a GPU where there is one");
    choice("--optim-dtype", c.optim_dtype, {}, "AdamW's moments on a GPU, default float32");
    choice("--grad-sync-dtype", c.grad_sync_dtype, {}, "under mpirun: what gradients travel in, default float32");
    of_shape(app.add_option("--zero-stage", c.zero_stage, "under mpirun: 1 shards optimizer state"))
        ->check(CLI::Range(0, 1));
    choice("--gradient-checkpointing", c.gradient_checkpointing, {}, "default none");
    of_shape(app.add_flag("--deterministic", c.deterministic, "on a GPU: the same bits in every run"));
    of_shape(
        app.add_option("--head-chunk", c.head_chunk, "rows whose logits are held at once, default as train has it"))
        ->check(at_least(1));
    auto* rank =
        of_shape(app.add_option("--lora-rank", c.lora_rank, "train adapters of this rank, not the whole model"))
            ->check(at_least(1));
    app.add_option("--lora-target", c.lora_target, "layers with adapters, default all")
        ->delimiter(',')
        ->check(CLI::IsMember(lora_modules()))
        ->needs(rank);
    app.add_option("--lora-dropout", c.lora_dropout, "default 0")->check(CLI::Range(0.0, 0.99))->needs(rank);
    of_shape(app.add_option("--random-seed", c.seed, "of weights and samples"))->capture_default_str();
    of_shape(app.add_flag("--plan", o.plan, "print the memory plan for --device, which need not be there, and stop"));
}

void declare(CLI::App& app, Options& o) {
    const auto count = [&](const char* name, int64_t& value, int64_t least, const char* help) {
        app.add_option(name, value, help)->check(CLI::Range(least, int64_t{1} << 30))->capture_default_str();
    };
    auto* what = app.add_option_group("what to run");
    auto* config = what->add_option("config", o.config, "YAML file of a training run");
    what->add_option("--model", o.shape.model,
                     fmt::format("a published shape: {}", fmt::join(model_shape_names(), ", ")));
    what->add_option("--shape", o.shape.sizes, "any other: hidden,ffn,layers,heads,kv_heads,head_dim,vocab")
        ->delimiter(',')
        ->expected(7);
    what->require_option(1);
    declare_shape(app, o, config);
    count("--steps", o.steps.timed, 1, "timed, the median counts");
    count("--warmup", o.steps.warmup, 0, "steps before them");
    count("--profile", o.steps.profiled, 0, "steps after them that tell phases apart");
    app.add_option("--json", o.json, "write the results to this file, or - for stdout");
    app.allow_extras();
    app.footer("Any key of the config can be given as key=value.");
}

int run(const Options& options, const std::vector<std::string>& overrides, const Ranks& ranks) {
    if (options.plan) {
        if (ranks.first()) fmt::print("{}", plan_of_shape(options.shape, ranks));
        return 0;
    }
    BenchmarkRun timed;
    ranks.together("start", [&] {
        timed = options.config.empty() ? run_of_shape(options.shape, options.steps, ranks)
                                       : run_of_config(options.config, overrides, options.steps, ranks);
    });
    const Json report = time_steps(timed, options.steps, ranks);
    if (!ranks.first()) return 0;
    if (options.json == "-") {
        fmt::print("{}\n", report.dump(2));
        return 0;
    }
    print(report, timed.session.model);
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
