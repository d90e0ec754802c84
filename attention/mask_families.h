#pragma once
// Every mask family by name, with parameters that default to those of the paper's kernel benchmark (arXiv 2410.01359,
// appendix), scaled to the length: for benchmarks, tests and pictures.

#include <span>
#include <string_view>

#include "attention/mask.h"

namespace colonnade {

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
    uint64_t seed = 0;
};

/// Windows and chunks of columns / 16; `documents` equal documents (0: 5 up to 8K columns, 12 up to 32K, else 13), each
/// with a prefix of a fifth and, for share-question, a question and 2 to 6 answers; a causal prefix of half the row;
/// evictions from half the row on; two sparse runs.
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
