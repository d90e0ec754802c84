// bench_attention: times FlashMask for one mask family, all of them or a mask from a file, beside the full mask of the
// same size; with --check compares every result with dense attention in double.

#include <nlohmann/json.hpp>
#include <optional>

#include "attention/mask_families.h"
#include "attention/mask_file.h"
#include "attention/measure.h"
#include "engine/command_line.h"
#include "engine/files.h"

using namespace colonnade;

namespace {

struct Options {
    std::string mask = "all", columns_file, dtype = "f32", json;
    int64_t length = 4096, query_length = 0, batch = 1, documents = 0, sliding_window = 0;
    AttentionSize size;
    int repeat = 5;
    bool check = false;
    std::vector<int64_t> ends;
    std::optional<int64_t> window, global_tokens, prefix, first_evicting_row;
    uint64_t seed = 0;
};

void declare(CLI::App& app, Options& o) {
    const auto at_least = [](int64_t n) { return CLI::Range(n, int64_t{1} << 30); };
    auto* mask = app.add_option("--mask", o.mask, "mask family, or all")->capture_default_str();
    app.add_option("--columns-file", o.columns_file, "HDF5 file: int32 datasets lts, lte, uts, ute; attribute causal")
        ->excludes(mask);
    app.add_option("--length", o.length, "keys")->check(at_least(1))->capture_default_str();
    app.add_option("--query-length", o.query_length, "queries, where not as many as keys")->check(at_least(1));
    app.add_option("--batch", o.batch)->check(at_least(1))->capture_default_str();
    app.add_option("--heads", o.size.heads)->check(at_least(1))->capture_default_str();
    app.add_option("--kv-heads", o.size.kv_heads, "key/value heads, default: as many as heads")->check(at_least(1));
    app.add_option("--head-dim", o.size.head_dim)->check(CLI::Range(1, 256))->capture_default_str();
    app.add_option("--dtype", o.dtype)->check(CLI::IsMember({"f32", "f64"}))->capture_default_str();
    app.add_option("--tile-rows", o.size.tile_rows)->check(at_least(1))->capture_default_str();
    app.add_option("--tile-columns", o.size.tile_columns)->check(at_least(1))->capture_default_str();
    app.add_option("--repeat", o.repeat, "timed runs, the median counts")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    auto* documents = app.add_option("--documents", o.documents, "equal documents, or blocks")->check(at_least(1));
    app.add_option("--ends", o.ends, "cumulative document ends: 3,8")->delimiter(',')->excludes(documents);
    app.add_option("--window", o.window, "keys in the window, default length / 16")->check(at_least(1));
    app.add_option("--global-tokens", o.global_tokens, "default 16")->check(at_least(0));
    app.add_option("--prefix", o.prefix, "of the prefix-LM causal mask, default length / 2")->check(at_least(0));
    app.add_option("--first-evicting-row", o.first_evicting_row, "default length / 2")->check(at_least(0));
    app.add_option("--seed", o.seed, "of random eviction")->capture_default_str();
    app.add_option("--sliding-window", o.sliding_window, "intersect causal masks with this window")->check(at_least(1));
    app.add_flag("--check", o.check, "compare with dense attention in double; exit 4 where it is too far off");
    app.add_option("--json", o.json, "write the results to this file, or - for stdout");
}

struct NamedMask {
    std::string name;
    ColumnMask mask;
};

std::vector<NamedMask> masks_of(const Options& o) {
    if (!o.columns_file.empty()) {
        ColumnMask mask = read_column_mask(o.columns_file, o.query_length);
        if (o.size.heads % mask.heads != 0)
            fail(Exit::config, "--heads {} is no multiple of the {} mask heads of {}", o.size.heads, mask.heads,
                 o.columns_file);
        return {{o.columns_file, std::move(mask)}};
    }
    const int64_t rows = o.query_length ? o.query_length : o.length;
    auto parameters = default_parameters(rows, o.length, o.size.heads, o.documents);
    if (!o.ends.empty()) set_documents(parameters, o.ends);
    parameters.window = o.window.value_or(parameters.window);
    parameters.global_tokens = o.global_tokens.value_or(parameters.global_tokens);
    parameters.prefix = o.prefix.value_or(parameters.prefix);
    parameters.first_evicting_row = o.first_evicting_row.value_or(parameters.first_evicting_row);
    parameters.seed = o.seed;
    if (o.mask != "all" && mask_family(o.mask).square && rows != o.length)
        fail(Exit::config, "--mask {}: takes as many queries as keys, not {} and {}", o.mask, rows, o.length);
    std::vector<NamedMask> masks;
    for (const MaskFamily& family : mask_families()) {
        if (o.mask != "all" ? o.mask != family.name : family.square && rows != o.length) continue;
        ColumnMask mask = family.build(parameters);
        if (o.sliding_window && (mask.causal || o.mask != "all")) mask = mask.with_sliding_window(o.sliding_window);
        masks.push_back({std::string(family.name), stack(std::vector(static_cast<size_t>(o.batch), mask))});
    }
    return masks;
}

nlohmann::ordered_json to_json(const std::string& name, const Measurement& m, const Measurement& full) {
    const double seconds = m.forward_seconds + m.backward_seconds;
    return {{"mask", name},
            {"visible_tiles", m.tile_share},
            {"visible_pairs", m.pair_share},
            {"plan_ms", m.plan_seconds * 1e3},
            {"forward_ms", m.forward_seconds * 1e3},
            {"backward_ms", m.backward_seconds * 1e3},
            {"forward_gflops", m.forward_flops / m.forward_seconds * 1e-9},
            {"backward_gflops", m.backward_flops / m.backward_seconds * 1e-9},
            {"forward_of_full", m.forward_seconds / full.forward_seconds},
            {"backward_of_full", m.backward_seconds / full.backward_seconds},
            {"time_of_full", seconds / (full.forward_seconds + full.backward_seconds)}};
}

void print_header(const Options& o, const ColumnMask& mask) {
    fmt::print("batch {}, {} queries, {} keys, {} heads, {} kv_heads, head_dim {}, {}\n", mask.batch, mask.rows,
               mask.columns, o.size.heads, o.size.kv_heads, o.size.head_dim, o.dtype);
    fmt::print("{:<22}{:>7}{:>7}{:>9}{:>10}{:>10}{:>9}{:>9}{:>9}\n", "mask", "tiles", "pairs", "plan ms", "fwd ms",
               "bwd ms", "fwd GF/s", "bwd GF/s", "of full");
}

void print_row(const nlohmann::ordered_json& r) {
    const auto number = [&](const char* key) { return r[key].get<double>(); };
    fmt::print("{:<22}{:>6.1f}%{:>6.1f}%{:>9.3f}{:>10.2f}{:>10.2f}{:>9.1f}{:>9.1f}{:>9.4f}\n",
               r["mask"].get<std::string>(), 100 * number("visible_tiles"), 100 * number("visible_pairs"),
               number("plan_ms"), number("forward_ms"), number("backward_ms"), number("forward_gflops"),
               number("backward_gflops"), number("time_of_full"));
    if (!r.contains("errors")) return;
    fmt::print("  worst relative error:");
    for (const char* of : {"out", "lse", "dq", "dk", "dv"})
        fmt::print(" {} {:.1e},", of, r["errors"][of].get<double>());
    fmt::print(" {} {:.0e}\n", r["errors"]["passed"].get<bool>() ? "within" : "OVER",
               r["errors"]["bound"].get<double>());
}

/// Errors against the oracle. The bound: what sums of some thousand rounded terms may be off by, with a margin.
nlohmann::ordered_json check(const ColumnMask& mask, const AttentionSize& size) {
    const double bound = size.dtype == DType::f32 ? 2e-5 : 1e-12;
    const auto e = check_flashmask(mask, size);
    return {{"out", e.out},
            {"lse", e.lse},
            {"dq", e.dq},
            {"dk", e.dk},
            {"dv", e.dv},
            {"bound", bound},
            {"passed", e.worst() <= bound}};
}

int bench(const Options& o) {
    const auto masks = masks_of(o);
    const ColumnMask& first = masks.front().mask;
    const auto full = measure_flashmask(
        stack(std::vector(static_cast<size_t>(first.batch), full_mask(first.rows, first.columns))), o.size, o.repeat);
    const bool table = o.json != "-";
    if (table) print_header(o, first);
    nlohmann::ordered_json report{{"batch", first.batch},  {"rows", first.rows},          {"columns", first.columns},
                                  {"heads", o.size.heads}, {"kv_heads", o.size.kv_heads}, {"head_dim", o.size.head_dim},
                                  {"dtype", o.dtype}};
    bool passed = true;
    for (const auto& [name, mask] : masks) {
        auto result = to_json(name, measure_flashmask(mask, o.size, o.repeat), full);
        if (o.check) {
            result["errors"] = check(mask, o.size);
            passed = passed && result["errors"]["passed"].get<bool>();
        }
        if (table) print_row(result);
        report["results"].push_back(std::move(result));
    }
    if (o.json == "-")
        fmt::print("{}\n", report.dump(2));
    else if (!o.json.empty())
        write_file_atomically(o.json, report.dump(2) + "\n");
    return static_cast<int>(passed ? Exit::ok : Exit::numerics);
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app("FlashMask attention on the CPU, timed by mask family");
    declare(app, options);
    return run_command("bench_attention", app, argc, argv, [&] {
        options.size.dtype = options.dtype == "f64" ? DType::f64 : DType::f32;
        if (app.count("--kv-heads") == 0) options.size.kv_heads = options.size.heads;
        if (options.size.heads % options.size.kv_heads != 0)
            fail(Exit::config, "--heads {} is no multiple of --kv-heads {}", options.size.heads, options.size.kv_heads);
        return bench(options);
    });
}
