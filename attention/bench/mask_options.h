#pragma once
// The masks that a command line asks for: families by name and length, or files.

#include <optional>
#include <string>
#include <vector>

#include "attention/mask.h"
#include "engine/program/command_line.h"

namespace colonnade {

struct MaskOptions {
    std::vector<std::string> masks{"all"}, columns_files{};
    std::vector<int64_t> lengths{4096}, ends{};
    std::string siblings = "largest_first";
    int64_t query_length = 0, batch = 1, documents = 0, shortest_document = -1, sliding_window = 0, mask_heads = 0;
    std::optional<int64_t> window{}, global_tokens{}, prefix{}, first_evicting_row{}, stem{}, leaf{};
    uint64_t seed = 0;
};

/// Declares the options; those with a default say it.
void declare_masks(CLI::App& app, MaskOptions& options);

struct NamedMask {
    std::string name;
    ColumnMask mask;
};
std::vector<NamedMask> masks_from_files(const MaskOptions& options);
/// The families of one length. `heads`: mask heads, unless the options say how many. Throws Exit::config for a family
/// that is not known, or that needs as many queries as keys.
std::vector<NamedMask> masks_of_length(const MaskOptions& options, int64_t length, int64_t heads);

}  // namespace colonnade
