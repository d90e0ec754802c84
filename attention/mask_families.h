#pragma once
// Every mask family by name, with parameters that default to those of the paper's kernel benchmark (arXiv 2410.01359,
// appendix), scaled to the length: for benchmarks, tests and pictures.

#include <span>
#include <string_view>

#include "attention/mask.h"

namespace colonnade {

/// Which of the subtrees that follow a prefix has the first columns. Behind a trunk with short branches, attention skips
/// more tiles if the rest of the trunk comes before them.
enum class SiblingOrder : uint8_t { largest_first, as_found };

struct FamilyParameters {
    int64_t rows = 0, columns = 0;    ///< rows != columns only for full and causal masks
    int64_t heads = 1;                ///< mask heads, for random eviction
    std::vector<int64_t> ends{};      ///< document ends; block ends of the causal blockwise mask
    std::vector<int64_t> prefixes{};  ///< one per document
    std::vector<BranchedSample> samples{};
    int64_t window = 1;  ///< keys of a causal window; reach to either side of other windows
    int64_t global_tokens = 16;
    int64_t prefix = 0;
    std::vector<ColumnRun> runs{};
    std::vector<int32_t> first_row{}, end_row{};  ///< hash-sparse
    int64_t first_evicting_row = 0;
    int64_t stem = -1, leaf = -1;  ///< trees: tokens of a stem, of a leaf on average; -1: the family's share of the row
    SiblingOrder siblings = SiblingOrder::largest_first;  ///< trees
    uint64_t seed = 0;                                    ///< random eviction; lengths of leaves
};

/// Windows and chunks of columns / 16; `documents` equal documents (0: 5 up to 8K columns, 12 up to 32K, else 13), each
/// with a prefix of a fifth and, for share-question, a question and 2 to 6 answers; a causal prefix of half the row;
/// evictions from half the row on; two sparse runs. Trees fill the row: leaves have half to one and a half times their
/// average length. `agent_traces`: a stem and 20 turns; a turn is a leaf (reasoning and action) beside the next piece of
/// the trunk (action and observation), 4/5 as long as an average leaf. `agent_traces_window`: the same within a sliding
/// window, which counts by the positions in each trace. `chats_behind_stem`: one stem, chats as leaves.
/// `rollouts`: stems with 8 leaves each.
FamilyParameters default_parameters(int64_t rows, int64_t columns, int64_t heads = 1, int64_t documents = 0);
/// Ends of `documents` documents of random lengths, each at least `shortest`, that fill n. Exit::config if they do not
/// fit.
std::vector<int64_t> random_document_ends(int64_t n, int64_t documents, int64_t shortest, uint64_t seed);
/// Sets the documents, and prefixes and share-question samples to match.
void set_documents(FamilyParameters& parameters, std::vector<int64_t> ends);

struct MaskFamily {
    std::string_view name;
    ColumnMask (*build)(const FamilyParameters&);
    bool square = true;  ///< requires rows == columns
};
std::span<const MaskFamily> mask_families();
/// Throws Exit::config with the known names if there is no family of this name.
const MaskFamily& mask_family(std::string_view name);

}  // namespace colonnade
