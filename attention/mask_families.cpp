#include "attention/mask_families.h"

#include <array>

#include "engine/device/philox.h"

namespace colonnade {
namespace {

constexpr std::array families{
    MaskFamily{"full", [](const FamilyParameters& p) { return full_mask(p.rows, p.columns); }, false},
    MaskFamily{"causal", [](const FamilyParameters& p) { return causal_mask(p.rows, p.columns); }, false},
    MaskFamily{"sliding_window", [](const FamilyParameters& p) { return sliding_window_mask(p.columns, p.window); }},
    MaskFamily{"bidirectional_window",
               [](const FamilyParameters& p) { return bidirectional_window_mask(p.columns, p.window, p.window); }},
    MaskFamily{"causal_document", [](const FamilyParameters& p) { return causal_document_mask(p.columns, p.ends); }},
    MaskFamily{"document", [](const FamilyParameters& p) { return document_mask(p.columns, p.ends); }},
    MaskFamily{"share_question", [](const FamilyParameters& p) { return share_question_mask(p.columns, p.samples); }},
    MaskFamily{"global_sliding_window",
               [](const FamilyParameters& p) {
                   return global_sliding_window_mask(p.columns, p.global_tokens, p.window, p.window);
               }},
    MaskFamily{"causal_blockwise", [](const FamilyParameters& p) { return causal_blockwise_mask(p.columns, p.ends); }},
    MaskFamily{"prefix_lm_causal",
               [](const FamilyParameters& p) { return prefix_lm_causal_mask(p.columns, p.prefix); }},
    MaskFamily{"prefix_lm_document",
               [](const FamilyParameters& p) { return prefix_lm_document_mask(p.columns, p.ends, p.prefixes); }},
    MaskFamily{"qk_sparse", [](const FamilyParameters& p) { return qk_sparse_mask(p.columns, p.runs); }},
    MaskFamily{"hash_sparse",
               [](const FamilyParameters& p) { return hash_sparse_mask(p.columns, p.first_row, p.end_row); }},
    MaskFamily{"random_eviction",
               [](const FamilyParameters& p) {
                   return random_eviction_mask(p.columns, p.heads, p.first_evicting_row, p.seed);
               }},
};

}  // namespace

std::vector<int64_t> random_document_ends(int64_t n, int64_t documents, int64_t shortest, uint64_t seed) {
    const int64_t spare = n - documents * shortest;
    if (documents < 1 || shortest < 0 || spare < 0)
        fail(Exit::config, "{} documents of at least {} tokens do not fit {} tokens", documents, shortest, n);
    // Random cuts of the tokens that remain when every document has its shortest length.
    std::vector<int64_t> ends;
    const Philox random{seed, 3};
    for (int64_t d = 0; d + 1 < documents; ++d)
        ends.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(d), static_cast<uint64_t>(spare) + 1)));
    ends.push_back(spare);
    std::sort(ends.begin(), ends.end());
    for (size_t d = 0; d < ends.size(); ++d) ends[d] += static_cast<int64_t>(d + 1) * shortest;
    return ends;
}

void set_documents(FamilyParameters& parameters, std::vector<int64_t> ends) {
    parameters.prefixes.clear();
    parameters.samples.clear();
    int64_t begin = 0;
    for (const int64_t end : ends) {
        const int64_t length = std::max<int64_t>(end - begin, 0);
        parameters.prefixes.push_back(length / 5);
        // A question and 2 to 6 answers of equal length; the question takes the remainder.
        const int64_t answers = 2 + static_cast<int64_t>(parameters.samples.size() % 5),
                      answer = length / (answers + 1);
        parameters.samples.push_back(
            {length - answers * answer, std::vector<int64_t>(static_cast<size_t>(answers), answer)});
        begin = end;
    }
    parameters.ends = std::move(ends);
}

FamilyParameters default_parameters(int64_t rows, int64_t columns, int64_t heads, int64_t documents) {
    const int64_t n = columns;
    FamilyParameters p{.rows = rows, .columns = columns, .heads = heads};
    if (documents == 0) documents = n <= 8192 ? 5 : n <= 32768 ? 12 : 13;
    std::vector<int64_t> ends;
    for (int64_t d = 1; d <= documents; ++d) ends.push_back(n * d / documents);
    set_documents(p, std::move(ends));
    p.window = std::max<int64_t>(n / 16, 1);
    p.prefix = p.first_evicting_row = n / 2;
    // At 8K these are the paper's runs: 538 tokens from 1024 and 1700 from 2358.
    p.runs = {{n / 8, n * 538 / 8192}, {n * 2358 / 8192, n * 1700 / 8192}};
    for (int64_t j = 0; j < n; ++j) {
        const int64_t chunk = j / p.window * p.window;
        p.first_row.push_back(static_cast<int32_t>(chunk));
        p.end_row.push_back(static_cast<int32_t>(std::min(chunk + 2 * p.window, n)));
    }
    return p;
}

std::span<const MaskFamily> mask_families() {
    return families;
}

const MaskFamily& mask_family(std::string_view name) {
    std::string known;
    for (const MaskFamily& family : families) {
        if (family.name == name) return family;
        known += fmt::format("{}{}", known.empty() ? "" : ", ", family.name);
    }
    fail(Exit::config, "unknown mask family '{}': expected one of {}", name, known);
}

}  // namespace colonnade
