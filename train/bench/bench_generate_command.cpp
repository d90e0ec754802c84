// bench_generate: times generation: reading prompts, and decoding with a batch of sequences whose contexts have a given
// length. Beside each step its floor: the time to read the weights, and the keys and values, once from memory. A
// published model's shape gets random weights; a folder, a GGUF file or adapters are loaded. docs/generation.md explains
// the figures.

#include <fmt/ranges.h>

#include "engine/device/gpu_timer.h"
#include "engine/device/host_copy.h"
#include "engine/device/human_units.h"
#include "engine/device/philox.h"
#include "engine/device/timing.h"
#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/bench/model_shapes.h"
#include "train/generation/decoder.h"
#include "train/run/loaded_model.h"
#include "train/run/machine.h"

namespace colonnade {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
    std::string model, base, device = "auto", dtype = "bfloat16", json;
    std::vector<int64_t> batches{1}, contexts{512};
    int64_t tokens = 64, threads = 0, lora_rank = 0;
    double bandwidth = 0;
    bool profile = false, sample = false;
};

/// A model whose weights are in memory of the device.
struct Model {
    ModelConfig config;
    ModelParameters weights;
    std::optional<LoraSettings> lora;
    std::vector<Arena> memory;
    std::unique_ptr<LoadedModel> loaded;
};

/// Random numbers for every parameter of a list, in a flat tensor of a dtype.
Tensor random_weights(Model& model, const ParameterList& list, DType dtype, Gpu* gpu) {
    Arena& arena = model.memory.emplace_back(gpu ? Device::cuda : Device::cpu,
                                             static_cast<size_t>(list.size()) * bytes_of(dtype) + Arena::alignment);
    const Tensor flat = arena.tensor("weights", dtype, {list.size()});
    for (const Parameter& p : list.all()) {
        const HostCopy host = HostCopy::blank(DType::f32, p.size());
        initialize(p, {.seed = 1, .range = model.config.initializer_range, .distinct = 1 << 20}, host.tensor());
        const float* const from = host.tensor().as<float>();
        const Tensor to = slice_of(flat, p);
        if (gpu)
            upload_as_bf16(*gpu, to, from);
        else if (dtype == DType::f32)
            std::copy_n(from, p.size(), to.as<float>());
        else
            std::transform(from, from + p.size(), to.as<bf16>(), [](float x) { return bf16{bf16_from_float(x)}; });
    }
    return flat;
}

/// On the CPU norms and biases are f32.
void keep_vectors_single(Model& model, const ParameterList& list) {
    const Tensor flat = random_weights(model, list, DType::f32, nullptr);
    const ModelParameters single = view_parameters(list, flat);
    model.weights.final_norm = single.final_norm;
    for (size_t l = 0; l < single.blocks.size(); ++l) {
        BlockParameters& to = model.weights.blocks[l];
        const auto linear = to.linear;
        to = single.blocks[l];
        for (const Projection p : all_projections) to.linear[p].weight = linear[p].weight;
    }
}

Model make_model(const Options& o, Gpu* gpu) {
    Model model;
    const std::vector<std::string> names = model_shape_names();
    if (std::ranges::find(names, o.model) == names.end() && o.model.find('/') != std::string::npos) {
        model.loaded =
            std::make_unique<LoadedModel>(LoadRequest{.model = o.model, .base = o.base, .gpu = gpu, .text = false});
        model.config = model.loaded->config();
        model.weights = model.loaded->weights();
        model.lora = model.loaded->lora();
        return model;
    }
    model.config = model_shape(o.model);
    const ParameterList list(model.config);
    const bool half = gpu || o.dtype == "bfloat16";
    model.weights = view_parameters(list, random_weights(model, list, half ? DType::bf16 : DType::f32, gpu));
    if (half && !gpu) keep_vectors_single(model, list);
    if (o.lora_rank == 0) return model;
    model.lora = LoraSettings{.rank = o.lora_rank, .targets = {lora_modules().begin(), lora_modules().end()}};
    const ParameterList adapters = lora_parameters(model.config, *model.lora);
    view_lora(model.config, *model.lora, adapters, random_weights(model, adapters, gpu ? DType::bf16 : DType::f32, gpu),
              model.weights);
    return model;
}

/// Bytes of matrices that a step reads.
double weight_bytes(const ModelParameters& w) {
    size_t bytes = w.head.bytes();
    for (const BlockParameters& block : w.blocks)
        for (const Projection p : all_projections) {
            bytes += block.linear[p].weight.bytes();
            if (!block.linear[p].adapters.empty()) bytes += block.linear[p].adapters.a.bytes();
            for (const LowRank::Slice& s : block.linear[p].adapters.slices) bytes += s.b.bytes();
        }
    return static_cast<double>(bytes);
}

/// Bytes of keys and values that a step reads: a window hides what is older.
double cache_bytes(const ModelConfig& c, int64_t batch, int64_t context, Device device) {
    int64_t keys = 0;
    for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
        const int64_t window = c.windows.empty() ? 0 : c.windows[static_cast<size_t>(l)];
        keys += window ? std::min(window, context) : context;
    }
    return static_cast<double>(batch * keys * 2 * c.kv_width() * (device == Device::cuda ? 2 : 4));
}

/// Prints the time of each linear layer alone, on a GPU: one product of every block in a row, so that no weight is in
/// the cache.
void time_linear_layers(const Model& model, const Context& ctx, int64_t rows) {
    const ModelConfig& c = model.config;
    const int64_t widest = std::max({c.qkv_width(), 2 * c.intermediate_size, c.hidden_size, c.query_width()});
    Arena arena(ctx.device, static_cast<size_t>(rows * (12 * widest + 4 * c.vocab_size + 64)) + 4096);
    const DecodeScratch scratch =
        DecodeScratch::lay_out(arena, DType::bf16, {.rows = rows, .in_features = widest, .out_features = widest});
    const Tensor x = arena.tensor("", DType::bf16, {rows, widest}), y = arena.tensor("", DType::bf16, {rows, widest});
    const Tensor logits = arena.tensor("", DType::f32, {rows, c.vocab_size});
    const auto time = [&](const char* name, double bytes, const std::function<void()>& work) {
        work();
        GpuTimer timer(*ctx.gpu);
        for (int i = 0; i < 5; ++i) timer.start(), work(), timer.stop();
        const std::vector<double> seconds = timer.seconds();
        const double best = *std::ranges::min_element(seconds);
        fmt::print("      {:<12} {:>9.3f} ms {:>8.0f} GB/s\n", name, 1e3 * best, 1e-9 * bytes / best);
    };
    const char* const names[] = {"qkv", "o", "gate_up", "down"};
    for (const Projection p : all_projections) {
        double bytes = 0;
        for (const BlockParameters& b : model.weights.blocks) bytes += static_cast<double>(b.linear[p].weight.bytes());
        time(names[static_cast<size_t>(p)], bytes, [&] {
            for (const BlockParameters& b : model.weights.blocks) {
                const LinearParameters& l = b.linear[p];
                const bool swiglu = p == Projection::gate_up, normed = swiglu || p == Projection::qkv;
                const int64_t n = l.weight.size(0);
                decode_linear(ctx, {.out = y.slice(1, 0, swiglu ? n / 2 : n),
                                    .in = x.slice(1, 0, l.weight.size(1)),
                                    .weight = l.weight,
                                    .bias = l.bias,
                                    .norm = normed ? b.input_norm : Tensor(),
                                    .eps = 1e-5,
                                    .finish = swiglu ? DecodeFinish::swiglu : DecodeFinish::none,
                                    .scratch = scratch});
            }
        });
    }
    time("head", static_cast<double>(model.weights.head.bytes()), [&] {
        decode_linear(ctx, {.out = logits,
                            .in = x.slice(1, 0, c.hidden_size),
                            .weight = model.weights.head,
                            .norm = model.weights.final_norm,
                            .eps = 1e-5,
                            .scratch = scratch});
    });
}

struct Times {
    double prompt_seconds, step_seconds;
    Profile phases;
};

std::vector<int32_t> random_tokens(int64_t count, int64_t vocab) {
    const Philox random{5, 0};
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < count; ++i)
        tokens.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(i), static_cast<uint64_t>(vocab))));
    return tokens;
}

/// Reads one prompt per slot: short ones together, long ones in pieces.
void read_prompts(Decoder& decoder, const Context& ctx, const std::vector<int32_t>& prompt, int64_t batch) {
    const int64_t length = std::ssize(prompt), piece = decoder.options().piece;
    if (length > piece) {
        for (int64_t slot = 0; slot < batch; ++slot)
            for (int64_t at = 0; at < length; at += piece) {
                const Decoder::Piece next{slot, at, std::span(prompt).subspan(at, std::min(piece, length - at))};
                decoder.read(ctx, {&next, 1});
            }
        return;
    }
    for (int64_t slot = 0; slot < batch;) {
        std::vector<Decoder::Piece> pieces;
        for (; slot < batch && (std::ssize(pieces) + 1) * length <= piece; ++slot) pieces.push_back({slot, 0, prompt});
        decoder.read(ctx, pieces);
    }
}

Times measure(const Options& o, const Model& model, const Context& ctx, int64_t batch, int64_t context) {
    constexpr int64_t warm = 4;
    const int64_t capacity = context + warm + o.tokens + 2;
    const DecoderOptions options{.cache = {.slots = batch, .capacity = capacity},
                                 .piece = std::min<int64_t>(ctx.gpu ? 8192 : 512, batch * context),
                                 .lora = model.lora,
                                 .gpu = ctx.gpu};
    Decoder decoder(model.config, model.weights, options);
    const std::vector<int32_t> prompt = random_tokens(context, model.config.vocab_size);
    const auto wait = [&] {
        if (ctx.gpu) ctx.gpu->synchronize();
    };
    Times times{};
    for (int time = 0; time < (ctx.gpu ? 2 : 1); ++time) {  // the first pass on a GPU also chooses its products
        const auto start = Clock::now();
        read_prompts(decoder, ctx, prompt, batch);
        wait();
        times.prompt_seconds = seconds_since(start);
    }
    std::vector<Decoder::Row> rows;
    for (int64_t slot = 0; slot < batch; ++slot) {
        rows.push_back({.slot = slot, .token = prompt.back(), .position = static_cast<int32_t>(context)});
        if (o.sample) rows.back().sampling = {.temperature = 0.8f, .top_p = 0.95f, .top_k = 50};
    }
    const auto run = [&](const Context& how, int64_t steps) {
        for (int64_t i = 0; i < steps; ++i) {
            decoder.step(how);
            if (decoder.waiting() > (how.gpu ? 1 : 0)) decoder.take();
        }
        while (decoder.waiting() > 0) decoder.take();
    };
    decoder.set_rows(ctx, rows);
    run(ctx, warm);
    const auto start = Clock::now();
    run(ctx, o.tokens);
    times.step_seconds = seconds_since(start) / static_cast<double>(o.tokens);
    if (!o.profile) return times;
    Context profiled = ctx;
    profiled.profile = &times.phases;
    decoder.set_rows(ctx, rows);
    run(profiled, 4);
    if (ctx.gpu) ctx.gpu->collect_phases(times.phases);
    return times;
}

Json report(const Options& o, const Model& model, const Context& ctx, int64_t batch, int64_t context) {
    const Times t = measure(o, model, ctx, batch, context);
    const double weights = weight_bytes(model.weights), cache = cache_bytes(model.config, batch, context, ctx.device);
    const auto count = static_cast<double>(batch);
    Json r = {{"model", o.model},
              {"batch", batch},
              {"context", context},
              {"prompt_tokens_per_second", count * static_cast<double>(context) / t.prompt_seconds},
              {"step_ms", 1e3 * t.step_seconds},
              {"tokens_per_second", count / t.step_seconds},
              {"weight_bytes", weights},
              {"cache_bytes", cache},
              {"bytes_per_second", (weights + cache) / t.step_seconds}};
    fmt::print("{:>5} {:>7} {:>12.0f} {:>10.3f} {:>11.1f} {:>9.1f}", batch, context,
               r["prompt_tokens_per_second"].get<double>(), 1e3 * t.step_seconds, count / t.step_seconds,
               1e-9 * (weights + cache) / t.step_seconds);
    if (o.bandwidth > 0) {
        const double floor = (weights + cache) / (1e9 * o.bandwidth);
        r["floor_ms"] = 1e3 * floor;
        r["share_of_floor"] = floor / t.step_seconds;
        fmt::print(" {:>9.3f} {:>7.1f}%", 1e3 * floor, 100 * floor / t.step_seconds);
    }
    fmt::print("\n");
    for (const auto& [phase, seconds] : t.phases.seconds()) {
        r["phases_ms"][phase] = 1e3 * seconds / 4;
        fmt::print("      {:<12} {:>9.3f} ms\n", phase, 1e3 * seconds / 4);
    }
    if (o.profile && ctx.gpu) time_linear_layers(model, ctx, batch);
    std::fflush(stdout);
    return r;
}

int run(const Options& o) {
    Config machine;
    machine.threads = o.threads;
    machine.device = o.device == "cpu"    ? DeviceChoice::cpu
                     : o.device == "cuda" ? DeviceChoice::cuda
                                          : DeviceChoice::automatic;
    const Device device = settle_machine(machine);
    const std::unique_ptr<Gpu> gpu = device == Device::cuda ? std::make_unique<Gpu>() : nullptr;
    const Context ctx{.device = device, .gpu = gpu.get()};
    const Model model = make_model(o, gpu.get());
    fmt::print("{} on {}: a step reads {} of weights\n", o.model, device_text(device, 0),
               human_bytes(static_cast<size_t>(weight_bytes(model.weights))));
    fmt::print("batch context  prompt tok/s    step ms       tok/s      GB/s{}\n",
               o.bandwidth > 0 ? "  floor ms    share" : "");
    Json results = Json::array();
    for (const int64_t context : o.contexts)
        for (const int64_t batch : o.batches) results.push_back(report(o, model, ctx, batch, context));
    if (!o.json.empty()) write_file_atomically(o.json, results.dump(2) + "\n");
    return 0;
}

}  // namespace

Work bench_generate_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    Options& o = *options;
    const auto counts = CLI::Range(int64_t{1}, int64_t{1} << 24);
    app.add_option("--model", o.model,
                   fmt::format("a folder, file or name (with a '/' in it), or the shape of a published model: {}",
                               fmt::join(model_shape_names(), ", ")))
        ->required();
    app.add_option("--base", o.base, "base model of a folder of adapters")->type_name("MODEL");
    app.add_option("--lora-rank", o.lora_rank, "for a shape: adapters of this rank on all layers")->check(counts);
    app.add_option("--batch", o.batches, "sequences; several, with commas")->delimiter(',')->check(counts);
    app.add_option("--context", o.contexts, "tokens in the cache before the first step; several, with commas")
        ->delimiter(',')
        ->check(counts);
    app.add_option("--tokens", o.tokens, "timed steps")->capture_default_str()->check(counts);
    app.add_option("--bandwidth", o.bandwidth, "GB/s of the memory, for the floor (an H200: 4300 are reached)")
        ->check(CLI::PositiveNumber);
    app.add_option("--device", o.device, "auto: a GPU if there is one")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
    app.add_option("--dtype", o.dtype, "for a shape on the CPU: matrices in bfloat16 or float32")
        ->capture_default_str()
        ->check(CLI::IsMember({"bfloat16", "float32"}));
    app.add_option("--threads", o.threads, "CPU threads (default: one per core)")->check(CLI::Range(0, 4096));
    app.add_flag("--sample", o.sample, "draw with temperature 0.8, top_p 0.95, top_k 50 instead of greedily");
    app.add_flag("--profile", o.profile, "also time the phases of a step, outside of its graph");
    app.add_option("--json", o.json, "write the results to this file")->type_name("FILE");
    return [options] { return run(*options); };
}

}  // namespace colonnade
