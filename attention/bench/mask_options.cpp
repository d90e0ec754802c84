#include "attention/bench/mask_options.h"

#include "attention/bench/mask_file.h"
#include "attention/mask_families.h"

namespace colonnade {

void declare_masks(CLI::App& app, MaskOptions& o) {
    auto* mask = app.add_option("--mask", o.masks, "mask families, such as causal,document; or all")
                     ->delimiter(',')
                     ->capture_default_str();
    auto* length = app.add_option("--length", o.lengths, "number of keys, or a list: 8192,32768")
                       ->delimiter(',')
                       ->check(at_least(1))
                       ->capture_default_str();
    app.add_option("--query-length", o.query_length, "number of queries, default: as many as keys")->check(at_least(1));
    app.add_option("--batch", o.batch)->check(at_least(1))->capture_default_str();
    app.add_option("--columns-file", o.columns_files,
                   "HDF5 files with int32 datasets lts, lte, uts, ute and an attribute causal")
        ->type_name("FILE")
        ->excludes(mask)
        ->excludes(length);
    auto* documents =
        app.add_option("--documents", o.documents, "number of equal documents, or blocks")->check(at_least(1));
    auto* shortest = app.add_option("--shortest-document", o.shortest_document,
                                    "random document lengths, each at least this many tokens")
                         ->check(at_least(0))
                         ->needs(documents);
    app.add_option("--ends", o.ends, "cumulative document ends, such as 3,8")
        ->delimiter(',')
        ->excludes(documents)
        ->excludes(shortest);
    app.add_option("--window", o.window, "keys in the window, default: length / 16")->check(at_least(1));
    app.add_option("--global-tokens", o.global_tokens, "tokens that all queries see, default: 16")->check(at_least(0));
    app.add_option("--prefix", o.prefix, "prefix of prefix_lm_causal, default: length / 2")->check(at_least(0));
    app.add_option("--first-evicting-row", o.first_evicting_row,
                   "first evicting row of random_eviction, default: length / 2")
        ->check(at_least(0));
    app.add_option("--mask-heads", o.mask_heads, "mask heads of random_eviction, default: as many as heads")
        ->check(at_least(1));
    app.add_option("--stem", o.stem, "tokens of the stem of a tree, default: a share of the length")
        ->check(at_least(1));
    app.add_option("--leaf", o.leaf, "average tokens of a leaf of a tree, default: a share of the length")
        ->check(at_least(1));
    app.add_option("--siblings", o.siblings, "order of the subtrees behind a prefix of a tree")
        ->check(CLI::IsMember({"largest_first", "as_found"}))
        ->capture_default_str();
    app.add_option("--seed", o.seed, "seed of random_eviction and of random lengths of documents and leaves")
        ->capture_default_str();
    app.add_option("--sliding-window", o.sliding_window, "intersect causal masks with a window of this many keys")
        ->check(at_least(1));
}

std::vector<NamedMask> masks_from_files(const MaskOptions& o) {
    std::vector<NamedMask> masks;
    for (const std::string& path : o.columns_files) masks.push_back({path, read_column_mask(path, o.query_length)});
    return masks;
}

std::vector<NamedMask> masks_of_length(const MaskOptions& o, int64_t length, int64_t heads) {
    const int64_t rows = o.query_length ? o.query_length : length;
    const int64_t mask_heads = o.mask_heads ? o.mask_heads : heads;
    auto parameters = default_parameters(rows, length, mask_heads, o.documents);
    if (!o.ends.empty()) set_documents(parameters, o.ends);
    if (o.shortest_document >= 0)
        set_documents(parameters, random_document_ends(length, o.documents, o.shortest_document, o.seed));
    parameters.window = o.window.value_or(parameters.window);
    parameters.global_tokens = o.global_tokens.value_or(parameters.global_tokens);
    parameters.prefix = o.prefix.value_or(parameters.prefix);
    parameters.first_evicting_row = o.first_evicting_row.value_or(parameters.first_evicting_row);
    parameters.stem = o.stem.value_or(parameters.stem);
    parameters.leaf = o.leaf.value_or(parameters.leaf);
    parameters.siblings = o.siblings == "as_found" ? SiblingOrder::as_found : SiblingOrder::largest_first;
    parameters.seed = o.seed;
    std::vector<NamedMask> masks;
    const auto build = [&](const MaskFamily& family, bool asked_for) {
        ColumnMask mask = family.build(parameters);
        if (o.sliding_window && (mask.causal || asked_for)) mask = mask.with_sliding_window(o.sliding_window);
        masks.push_back({std::string(family.name), stack(std::vector(static_cast<size_t>(o.batch), mask))});
    };
    for (const std::string& name : o.masks) {
        if (name == "all") {
            for (const MaskFamily& family : mask_families())
                if (!family.square || rows == length) build(family, false);
            continue;
        }
        const MaskFamily& family = mask_family(name);
        if (family.square && rows != length)
            fail(Exit::config, "--mask {}: needs as many queries as keys, found {} and {}", name, rows, length);
        build(family, true);
    }
    return masks;
}

}  // namespace colonnade
