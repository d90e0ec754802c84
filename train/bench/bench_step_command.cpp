// bench_step: times whole optimizer steps (forward, loss, backward, gradient norm, AdamW) on the CPU or a GPU, on
// packed rows as in `train`, in every stage. It runs a training config, or a model shape (by name or by numbers) on
// rows with given document lengths or on pairs of answers. Under mpirun every rank takes its own packs, and extra steps
// without the exchange of gradients show its cost. docs/benchmarks.md explains every figure.

#include "engine/device/human_units.h"
#include "engine/io/files.h"
#include "engine/io/progress.h"
#include "engine/program/command_line.h"
#include "train/bench/model_shapes.h"
#include "train/bench/step_timing.h"
#include "train/config/cuda_memory.h"
#include "train/config/spellings.h"

namespace colonnade {
namespace {

struct Options {
    std::string config, json;
    ShapeRequest request;  ///< if there is no config
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
             fmt::format("rank {}, dropout {}, on {}: trains {} parameters, base {}", lora["rank"].dump(),
                         lora["dropout"].dump(), lora["targets"].dump(), human_count(number("trained_parameters")),
                         r["base_quantization"] == "none" ? "bf16" : text("base_quantization")));
    if (r.contains("tokens_per_pair"))
        line("stage", fmt::format("{}{}", text("stage"),
                                  r.contains("reference") ? ", reference " + text("reference") : std::string()));
    line("batch", fmt::format("{} x {} packs of {}, {}; {:.1f} % padding{}", number("accumulation"), number("packs"),
                              number("length"), text("rows"), 100 * number("padding_share"),
                              r.contains("target_share") ? fmt::format(", {:.1f} % of the real tokens are targets",
                                                                       100 * number("target_share"))
                                                         : ""));
    line("device",
         gpu ? fmt::format(
                   "{}{}, {}, moments {}{}{}, recomputed: {}{}{}", text("device"),
                   r["compute"] == "fp8" ? ", linear layers in fp8" : "", text("optim"), text("optim_dtype"),
                   number("offload_optimizer") > 0
                       ? fmt::format(", {:.0f} % of the optimizer in host memory", 100 * number("offload_optimizer"))
                       : std::string(),
                   r["offload_weights"] == 0 ? std::string()
                                             : fmt::format(", {} blocks in host memory", number("offload_weights")),
                   text("gradient_checkpointing"),
                   r["offload_activations"] == 0
                       ? ""
                       : fmt::format(", inputs of {} blocks offloaded", number("offload_activations")),
                   r["deterministic"] ? ", deterministic" : "")
             : fmt::format("{} threads, {:.1f} ms of CPU time per step", number("threads"), number("step_cpu_ms")));
    line("step", fmt::format("{:.1f} ms (median of {}, {:.1f} to {:.1f}); loss {:.4f}, then {:.4f}", number("step_ms"),
                             number("steps"), number("step_ms_min"), number("step_ms_max"), number("first_loss"),
                             number("last_loss")));
    const double tflops = number("tflops");
    line("speed", fmt::format("{:.0f} real tokens/s, {}{}", number("tokens_per_second"),
                              gpu ? fmt::format("{:.1f} TFLOP/s", tflops) : fmt::format("{:.1f} GFLOP/s", 1e3 * tflops),
                              r.contains("mfu") ? fmt::format(", MFU {:.1f} %", 100 * number("mfu")) : ""));
    if (r.contains("watts") && r.contains("clock_mhz"))
        line("power",
             fmt::format("{:.0f} W, {:.0f} MHz: means over the timed steps", number("watts"), number("clock_mhz")));
    if (r.contains("represented_per_token"))
        line("sharing", fmt::format("{:.0f} tokens of samples/s, {:.2f} for each token that is computed",
                                    number("represented_tokens_per_second"), number("represented_per_token")));
    if (r.contains("tokens_per_pair"))
        line("pairs",
             fmt::format(
                 "{:.2f} pairs/s, {:.1f} real tokens per pair{}", number("pairs_per_second"), number("tokens_per_pair"),
                 r.contains("ranks") ? fmt::format("; {:.2f} pairs/s in all", number("pairs_per_second_all")) : ""));
    if (r.contains("ranks"))
        line("ranks",
             fmt::format(
                 "{}: {:.0f} real tokens/s in all, {:.1f} % of the sum without exchange; {:.1f} to {:.1f} ms per "
                 "step without exchange (zero_stage {}, {}): {:.1f} ms are exposed",
                 number("ranks"), number("tokens_per_second_all"),
                 100 * number("tokens_per_second_all") / number("tokens_per_second_all_alone"),
                 number("step_ms_alone_fastest"), number("step_ms_alone"), number("zero_stage"),
                 text("grad_sync_dtype"), number("exposed_ms")));
    const auto host = r["memory_host_bytes"].get<size_t>();
    line("memory", fmt::format("{} planned, {} at peak{}", human_bytes(r["memory_planned_bytes"].get<size_t>()),
                               human_bytes(r["memory_peak_bytes"].get<size_t>()),
                               host > 0 ? fmt::format("; {} of host memory pinned", human_bytes(host)) : ""));
    if (!r.contains("phases")) return;
    fmt::print("\n{:<14}{:>9}{:>9}\n", "phase", "ms", "share");
    for (const auto& [name, phase] : r["phases"].items())
        fmt::print("{:<14}{:>9.2f}{:>8.1f}%\n", name, phase["ms"].get<double>(), 100 * phase["share"].get<double>());
    if (!r.contains("transfers")) return;
    const auto copies = [&](const char* way) {
        const Json& t = r["transfers"][way];
        return fmt::format("{:.2f} GB in {:.0f} ms", t["gigabytes"].get<double>(), t["ms"].get<double>());
    };
    fmt::print("\n");
    line("copies", fmt::format("to the GPU {}, to the host {} a step; computation waits {:.0f} ms for them",
                               copies("to_device"), copies("to_host"), r["transfers"]["awaited_ms"].get<double>()));
}

/// Options of a shape. A config has keys for all of them, so that they exclude it.
class ShapeOptions {
  public:
    ShapeOptions(CLI::App& app, CLI::Option* config, ShapeRequest& request)
        : app_(app), config_(config), r_(request), c_(request.config) {}

    void declare() {
        declare_batch();
        declare_rows();
        declare_machine();
        declare_lora();
        of_shape(app_.add_option("--random-seed", c_.seed, "seed of weights and samples"))->capture_default_str();
    }

  private:
    CLI::Option* of_shape(CLI::Option* option) { return option->excludes(config_); }
    CLI::Option* count(const char* name, int64_t& value, int64_t least, const char* help) {
        return of_shape(app_.add_option(name, value, help))->check(at_least(least));
    }
    /// A size of more than `least` bytes.
    void size(const char* name, MemorySize& value, size_t least, const char* help) {
        const auto set = [=, &value](const std::string& text) {
            const std::optional<size_t> bytes = parse_bytes(text);
            if (!bytes)
                throw CLI::ValidationError(name, fmt::format("expected a size such as 24GiB or 48GB, found {}", text));
            if (*bytes <= least)
                throw CLI::ValidationError(name,
                                           fmt::format("expected more than {}, found {}", exact_bytes(least), text));
            value.bytes = static_cast<int64_t>(*bytes);
        };
        of_shape(app_.add_option_function<std::string>(name, set, help))->type_name("SIZE");
    }
    /// An enum with the spellings of the config; `words` restricts them.
    template <typename E>
    CLI::Option* choice(const char* name, E& value, const char* help, std::vector<std::string> words = {}) {
        const auto set = [&value](const std::string& word) {
            for (const Spelling<E>& s : spellings<E>)
                if (word == s.name) value = s.value;
        };
        if (words.empty())
            for (const Spelling<E>& s : spellings<E>) words.emplace_back(s.name);
        return of_shape(app_.add_option_function<std::string>(name, set, help)->check(CLI::IsMember(words)));
    }

    void declare_batch() {
        c_.packing_length = 2048;
        count("--packs", c_.per_device_train_batch_size, 1, "rows per micro-step")->capture_default_str();
        count("--accumulation", c_.gradient_accumulation_steps, 1, "micro-steps per step")->capture_default_str();
    }
    void declare_rows() {
        CLI::Option* const length =
            count("--length", c_.packing_length, 2, "tokens per row; by default one document fills it")
                ->capture_default_str();
        CLI::Option* const mean =
            count("--mean-length", r_.mean_length, 2, "pack samples of log-normal length with this mean");
        CLI::Option* const lengths =
            of_shape(app_.add_option("--lengths", r_.lengths, "file with the document lengths of one row per line"))
                ->type_name("FILE")
                ->excludes(length)
                ->excludes(mean);
        CLI::Option* const trees =
            of_shape(app_.add_option("--trees", r_.trees,
                                     "pack samples that begin alike: tokens of the stem, leaves behind it, tokens that "
                                     "each turn adds to the trunk, tokens of a leaf"))
                ->delimiter(',')
                ->expected(4)
                ->check(at_least(0))
                ->excludes(mean)
                ->excludes(lengths);
        choice("--share-prefixes", c_.share_prefixes, "compute what samples begin with once per row (default auto)")
            ->needs(trees);
        CLI::Option* const stage =
            choice("--stage", c_.stage,
                   "train on pairs, packed into rows; the log-probabilities of dpo's reference are constants, as if "
                   "precomputed",
                   {"dpo", "rm"})
                ->excludes(mean)
                ->excludes(trees)
                ->excludes(lengths);
        CLI::Option* const pairs =
            of_shape(app_.add_option("--pair-lengths", r_.pair_lengths, "tokens of prompt,chosen,rejected"))
                ->delimiter(',')
                ->expected(3)
                ->check(at_least(1))
                ->needs(stage);
        stage->needs(pairs);
        of_shape(app_.add_flag("--repeat-prompts", r_.repeat_prompts,
                               "give each answer its own prompt, to show the gain of sharing prompts"))
            ->needs(stage);
    }
    void declare_machine() {
        choice("--device", c_.device, "auto: use a GPU if available");
        choice("--compute", c_.compute, "fp8: linear layers multiply in 8 bits (default bf16)");
        choice("--optim", c_.optim, "optimizer (default adamw)");
        choice("--optim-dtype", c_.optim_dtype, "type of AdamW's moments on a GPU (default float32)");
        of_shape(app_.add_option("--offload-optimizer", c_.offload_optimizer.value,
                                 "share of the optimizer's state in host memory, 0 to 1 (default 0)"))
            ->check(CLI::Range(0.0, 1.0));
        choice("--grad-sync-dtype", c_.grad_sync_dtype,
               "under mpirun: type of the gradients sent between ranks (default float32)");
        of_shape(app_.add_option("--zero-stage", c_.zero_stage, "under mpirun: 1 shards the optimizer state"))
            ->check(CLI::Range(0, 1));
        choice("--gradient-checkpointing", c_.gradient_checkpointing, "activations to recompute (default none)");
        const std::map<std::string, int64_t> words = {{"true", BlockCount::all}, {"false", 0}};
        count("--offload-activations", c_.offload_activations.count, 0,
              "on a GPU: blocks whose inputs are in host memory until backward, or true: of all but two (default "
              "false)")
            ->transform(CLI::Transformer(words).description(""))
            ->type_name("BLOCKS");
        count("--offload-weights", c_.offload_weights.count, 0,
              "on a GPU: blocks whose weights and gradients are in host memory, or true: all (default false)")
            ->transform(CLI::Transformer(words).description(""))
            ->type_name("BLOCKS");
        choice("--fit", c_.fit,
               "auto: if the memory does not suffice, choose the settings that fit and are fastest by prediction "
               "(default off)");
        size("--gpu-memory", c_.gpu_memory, cuda_memory,
             "memory of a GPU that --fit may use, such as 24GiB (default: what it has)");
        size("--host-memory", c_.host_memory, 0, "host memory that --fit may use (default: what is free)");
        of_shape(app_.add_flag("--deterministic", c_.deterministic, "on a GPU: the same bits in every run"));
        count("--head-chunk", c_.head_chunk, 1, "tokens whose logits are computed at a time (default as in train)");
    }
    void declare_lora() {
        CLI::Option* const rank =
            count("--lora-rank", c_.lora_rank, 1, "train adapters of this rank instead of the whole model");
        app_.add_option("--lora-target", c_.lora_target, "layers with adapters (default all)")
            ->delimiter(',')
            ->check(CLI::IsMember(lora_modules()))
            ->needs(rank);
        app_.add_option("--lora-dropout", c_.lora_dropout, "dropout of the adapters' input (default 0)")
            ->check(CLI::Range(0.0, 0.99))
            ->needs(rank);
        choice("--base-quantization", c_.base_quantization, "the frozen base in fewer bits (default none)")
            ->needs(rank);
    }

    CLI::App& app_;
    CLI::Option* config_;
    ShapeRequest& r_;
    Config& c_;
};

/// hidden, ffn, layers, heads, kv_heads, head_dim, vocab
ModelShape shape_of_sizes(const std::vector<int64_t>& sizes) {
    return {.hidden_size = sizes.at(0),
            .intermediate_size = sizes.at(1),
            .num_hidden_layers = sizes.at(2),
            .num_attention_heads = sizes.at(3),
            .num_key_value_heads = sizes.at(4),
            .head_dim = sizes.at(5),
            .vocab_size = sizes.at(6),
            .tie_word_embeddings = true};
}

void declare(CLI::App& app, Options& o) {
    const auto count = [&](const char* name, int64_t& value, int64_t least, const char* help) {
        app.add_option(name, value, help)->check(CLI::Range(least, int64_t{1} << 30))->capture_default_str();
    };
    auto* what = app.add_option_group("what to run");
    auto* config = what->add_option("config", o.config, "YAML file of a training run")->type_name("CONFIG.yaml");
    what->add_option("--model", o.request.model,
                     fmt::format("shape of a published model: {}", fmt::join(model_shape_names(), ", ")));
    what->add_option_function<std::vector<int64_t>>(
            "--shape", [&o](const std::vector<int64_t>& sizes) { o.request.shape = shape_of_sizes(sizes); },
            "any other shape: hidden,ffn,layers,heads,kv_heads,head_dim,vocab")
        ->delimiter(',')
        ->expected(7);
    what->require_option(1);
    ShapeOptions(app, config, o.request).declare();
    app.add_flag("--plan", o.plan, "print the memory plan for --device, which this machine need not have, and stop")
        ->excludes(config);
    count("--steps", o.steps.timed, 1, "timed steps; figures are medians over them");
    count("--warmup", o.steps.warmup, 0, "steps before the timed ones");
    count("--profile", o.steps.profiled, 0, "steps after the timed ones, to time the phases of a step");
    app.add_option("--json", o.json, "write the results to this file, or to stdout if -")->type_name("FILE");
    app.allow_extras();
    app.footer("With a config, any of its keys can be given as key=value.");
}

int run(const Options& options, const std::vector<std::string>& overrides, const Ranks& ranks) {
    if (options.plan) {
        if (ranks.first()) fmt::print("{}", plan_of_shape(options.request, ranks));
        return 0;
    }
    BenchmarkRun timed;
    ranks.together("start", [&] {
        timed = options.config.empty() ? run_of_shape(options.request, options.steps, ranks)
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

Work bench_step_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    declare(app, *options);
    return [options, &app] {
        if (options->config.empty() && !app.remaining().empty())
            fail(Exit::config, "{}: keys need a config; a shape takes none", app.remaining().front());
        Ranks ranks({.program = app.get_name()});
        return ranks.guard([&] { return run(*options, app.remaining(), ranks); });
    };
}

}  // namespace colonnade
