// bench_attention: times FlashMask on the CPU or a GPU for mask families or masks from files, next to the full mask of
// the same size. --check compares every result with dense attention in double. --show-plan prints the tile plan of each
// mask instead.

#include <nlohmann/json.hpp>
#include <optional>

#include "attention/bench/mask_options.h"
#include "attention/bench/timing.h"
#include "attention/plan_picture.h"
#include "engine/device/device.h"
#include "engine/io/files.h"
#include "engine/program/command_line.h"

namespace colonnade {
namespace {

struct Options {
    MaskOptions masks;
    std::string device, dtype, json;
    AttentionSize size;
    int repeat = 5;
    bool check = false, without_full = false, show_plan = false;
};

void declare_sizes(CLI::App& app, Options& o) {
    app.add_option("--device", o.device, "default: cuda if there is a GPU, otherwise cpu")
        ->check(CLI::IsMember({"cpu", "cuda"}));
    app.add_option("--dtype", o.dtype, "cpu: f32 (default) or f64; cuda: bf16")
        ->check(CLI::IsMember({"f32", "f64", "bf16"}));
    app.add_option("--heads", o.size.heads)->check(at_least(1))->capture_default_str();
    app.add_option("--kv-heads", o.size.kv_heads, "key/value heads, default: as many as heads")->check(at_least(1));
    app.add_option("--head-dim", o.size.head_dim, "1 to 256; cuda: 64, 96, 128 or 256")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    app.add_option("--tile-rows", o.size.tile_rows, "rows of a tile, cpu only; default: as in training")
        ->check(at_least(1));
    app.add_option("--tile-columns", o.size.tile_columns, "columns of a tile, cpu only; default: as in training")
        ->check(at_least(1));
}

void declare(CLI::App& app, Options& o) {
    declare_sizes(app, o);
    declare_masks(app, o.masks);
    auto* repeat = app.add_option("--repeat", o.repeat, "number of timed runs; the median is reported")
                       ->check(CLI::Range(1, 1000))
                       ->capture_default_str();
    auto* without_full = app.add_flag("--without-full", o.without_full, "do not time the full mask for comparison");
    auto* check = app.add_flag("--check", o.check,
                               "compare with dense attention in double; exit 4 if an error exceeds its bound");
    auto* json =
        app.add_option("--json", o.json, "write the results to this file, or to stdout if -")->type_name("FILE");
    auto* show_plan =
        app.add_flag("--show-plan", o.show_plan, "print the tile plan of each mask as a picture; time nothing");
    for (auto* timing : {repeat, without_full, check, json}) show_plan->excludes(timing);
}

nlohmann::ordered_json to_json(const NamedMask& named, const AttentionTimes& m,
                               const std::optional<AttentionTimes>& full, Device device) {
    nlohmann::ordered_json result{{"mask", named.name},
                                  {"batch", named.mask.batch},
                                  {"rows", named.mask.rows},
                                  {"columns", named.mask.columns},
                                  {"visible_tiles", m.active_tiles},
                                  {"visible_pairs", m.visible_pairs},
                                  {"plan_ms", m.plan_seconds * 1e3},
                                  {"forward_ms", m.forward_seconds * 1e3},
                                  {"backward_ms", m.backward_seconds * 1e3},
                                  {"forward_gflops", m.forward_flops / m.forward_seconds * 1e-9},
                                  {"backward_gflops", m.backward_flops / m.backward_seconds * 1e-9}};
    if (device == Device::cuda) result["deterministic_backward_ms"] = m.deterministic_seconds * 1e3;
    if (full) {
        result["forward_of_full"] = m.forward_seconds / full->forward_seconds;
        result["backward_of_full"] = m.backward_seconds / full->backward_seconds;
        result["time_of_full"] =
            (m.forward_seconds + m.backward_seconds) / (full->forward_seconds + full->backward_seconds);
    }
    return result;
}

void print_header(const Options& o, const std::string& device, Device kind, const ColumnMask& mask) {
    fmt::print("{}: batch {}, {} queries, {} keys, {} heads, {} kv_heads, head_dim {}, {}\n", device, mask.batch,
               mask.rows, mask.columns, o.size.heads, o.size.kv_heads, o.size.head_dim, name_of(o.size.dtype));
    const char unit = kind == Device::cuda ? 'T' : 'G';
    fmt::print("{:<22}{:>7}{:>7}{:>9}{:>10}{:>10}", "mask", "tiles", "pairs", "plan ms", "fwd ms", "bwd ms");
    if (kind == Device::cuda) fmt::print("{:>10}", "det ms");
    fmt::print("{:>6} {}F/s{:>5} {}F/s", "fwd", unit, "bwd", unit);
    fmt::print("{}\n", o.without_full ? "" : "  of full");
}

void print_row(const nlohmann::ordered_json& r, Device kind) {
    const auto number = [&](const char* key) { return r[key].get<double>(); };
    const double unit = kind == Device::cuda ? 1e-3 : 1;
    fmt::print("{:<22}{:>6.1f}%{:>6.1f}%{:>9.3f}{:>10.3f}{:>10.3f}", r["mask"].get<std::string>(),
               100 * number("visible_tiles"), 100 * number("visible_pairs"), number("plan_ms"), number("forward_ms"),
               number("backward_ms"));
    if (kind == Device::cuda) fmt::print("{:>10.3f}", number("deterministic_backward_ms"));
    fmt::print("{:>11.1f}{:>10.1f}", unit * number("forward_gflops"), unit * number("backward_gflops"));
    if (r.contains("time_of_full")) fmt::print("{:>9.4f}", number("time_of_full"));
    fmt::print("\n");
    if (!r.contains("errors")) return;
    fmt::print("  worst relative error (bound):");
    for (const char* of : {"out", "lse", "dq", "dk", "dv"})
        fmt::print(" {} {:.1e} ({:.0e}){}", of, r["errors"][of].get<double>(), r["errors"]["bounds"][of].get<double>(),
                   of == std::string_view("dv") ? "" : ",");
    fmt::print("{}\n", r["errors"]["passed"].get<bool>() ? "" : ": OVER");
}

nlohmann::ordered_json check(const Context& ctx, const ColumnMask& mask, const AttentionSize& size) {
    const auto named = [](const AttentionErrors& e) {
        return nlohmann::ordered_json{{"out", e.out}, {"lse", e.lse}, {"dq", e.dq}, {"dk", e.dk}, {"dv", e.dv}};
    };
    const AttentionCheck found = check_flashmask(ctx, mask, size);
    nlohmann::ordered_json errors = named(found.errors);
    errors["bounds"] = named(found.bounds);
    errors["passed"] = found.errors.within(found.bounds);
    return errors;
}

/// Sets the defaults of device, dtype and heads; returns the GPU if one is to be used.
std::unique_ptr<Gpu> settle(const CLI::App& app, Options& o) {
    const bool cuda = o.device.empty() ? !cuda_devices().empty() : o.device == "cuda";
    if (o.dtype.empty()) o.dtype = cuda ? "bf16" : "f32";
    if (cuda != (o.dtype == "bf16"))
        fail(Exit::config, "--dtype {} on {}: expected {}", o.dtype, cuda ? "cuda" : "cpu",
             cuda ? "bf16" : "f32 or f64");
    o.size.dtype = cuda ? DType::bf16 : o.dtype == "f64" ? DType::f64 : DType::f32;
    if (cuda && (app.count("--tile-rows") || app.count("--tile-columns")))
        fail(Exit::config, "--tile-rows and --tile-columns apply to the CPU only; tiles of a GPU are 64 x 64");
    if (app.count("--kv-heads") == 0) o.size.kv_heads = o.size.heads;
    if (o.size.heads % o.size.kv_heads != 0)
        fail(Exit::config, "--heads {} is not a multiple of --kv-heads {}", o.size.heads, o.size.kv_heads);
    return cuda ? std::make_unique<Gpu>() : nullptr;
}

/// One table: masks of one size. Returns whether all checks passed.
bool bench(const Options& o, const Context& ctx, const std::vector<NamedMask>& masks, nlohmann::ordered_json& results) {
    const ColumnMask& first = masks.front().mask;
    const bool table = o.json != "-";
    if (table) print_header(o, ctx.gpu ? ctx.gpu->name() : "cpu", ctx.device, first);
    std::optional<AttentionTimes> full;
    if (!o.without_full)
        full = time_flashmask(
            ctx, stack(std::vector(static_cast<size_t>(first.batch), full_mask(first.rows, first.columns))), o.size,
            o.repeat);
    bool passed = true;
    for (const NamedMask& named : masks) {
        if (o.size.heads % named.mask.heads != 0)
            fail(Exit::config, "--heads {} is not a multiple of the {} mask heads of {}", o.size.heads,
                 named.mask.heads, named.name);
        const bool measured = full && named.name == "full";
        auto result =
            to_json(named, measured ? *full : time_flashmask(ctx, named.mask, o.size, o.repeat), full, ctx.device);
        if (o.check) {
            result["errors"] = check(ctx, named.mask, o.size);
            passed = passed && result["errors"]["passed"].get<bool>();
        }
        if (table) print_row(result, ctx.device);
        results.push_back(std::move(result));
    }
    return passed;
}

/// Prints the plan that attention would use on this device.
void show_plan(const Options& o, const Context& ctx, const NamedMask& named) {
    Arena planned(ctx.device);
    GpuTilePlan::lay_out(planned, named.mask);
    Arena arena(ctx.device, planned.bytes());
    const GpuTilePlan memory = GpuTilePlan::lay_out(arena, named.mask);
    const TilePlan plan = tile_plan_of(ctx, memory, named.mask, o.size);
    fmt::print("{}: {}", named.name, plan_picture(ctx, named.mask, plan));
}

int run(const CLI::App& app, Options& o) {
    const std::unique_ptr<Gpu> gpu = settle(app, o);
    const Context ctx{.device = gpu ? Device::cuda : Device::cpu, .gpu = gpu.get()};
    if (o.show_plan) {
        for (const NamedMask& mask : masks_from_files(o.masks)) show_plan(o, ctx, mask);
        if (o.masks.columns_files.empty())
            for (const int64_t length : o.masks.lengths)
                for (const NamedMask& mask : masks_of_length(o.masks, length, o.size.heads)) show_plan(o, ctx, mask);
        return 0;
    }
    nlohmann::ordered_json report{
        {"device", gpu ? gpu->name() : "cpu"}, {"heads", o.size.heads}, {"kv_heads", o.size.kv_heads},
        {"head_dim", o.size.head_dim},         {"dtype", o.dtype},      {"results", nlohmann::ordered_json::array()}};
    bool passed = true;
    // One table per length; masks from files have sizes of their own.
    if (o.masks.columns_files.empty())
        for (const int64_t length : o.masks.lengths)
            passed = bench(o, ctx, masks_of_length(o.masks, length, o.size.heads), report["results"]) && passed;
    for (NamedMask& mask : masks_from_files(o.masks)) {
        std::vector<NamedMask> alone;
        alone.push_back(std::move(mask));
        passed = bench(o, ctx, alone, report["results"]) && passed;
    }
    if (o.json == "-")
        fmt::print("{}\n", report.dump(2));
    else if (!o.json.empty())
        write_file_atomically(o.json, report.dump(2) + "\n");
    return static_cast<int>(passed ? Exit::ok : Exit::numerics);
}

}  // namespace

Work bench_attention_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    declare(app, *options);
    return [options, &app] { return run(app, *options); };
}

}  // namespace colonnade
