#include "attention/mask_families.h"

#include <array>
#include <functional>

#include "engine/device/philox.h"

namespace colonnade {
namespace {

/// Trees that grow until a row has no room for more.
class Forest {
  public:
    static constexpr size_t root = 0;

    explicit Forest(const FamilyParameters& p) : p_(p), left_(p.columns) {}

    bool full() const { return left_ == 0; }
    /// Adds a run of tokens behind node `parent`, as long as there is room. Returns its node.
    size_t add(size_t parent, int64_t tokens) {
        tokens = std::clamp<int64_t>(tokens, 1, left_);
        left_ -= tokens;
        nodes_[parent].children.push_back(nodes_.size());
        nodes_.push_back({.tokens = tokens});
        return nodes_.size() - 1;
    }
    void add_leaf(size_t parent, int64_t mean) {
        const auto drawn = Philox{p_.seed, 4}.below(nodes_.size(), static_cast<uint64_t>(mean) + 1);
        add(parent, mean / 2 + static_cast<int64_t>(drawn));
    }

    std::vector<WalkedSequence> walk() {
        for (size_t i = nodes_.size(); i-- > 0;) {  // children come after their parents
            Node& node = nodes_[i];
            node.subtree = node.tokens;
            for (const size_t child : node.children) node.subtree += nodes_[child].subtree;
            if (p_.siblings == SiblingOrder::largest_first)
                std::ranges::stable_sort(node.children, std::greater{}, [&](size_t n) { return nodes_[n].subtree; });
        }
        std::vector<WalkedSequence> sequences;
        int64_t placed = 0;  // tokens of the current path that have columns
        visit(root, 0, placed, sequences);
        return sequences;
    }

  private:
    struct Node {
        int64_t tokens, subtree = 0;
        std::vector<size_t> children{};
    };

    /// `depth` tokens are before the node.
    void visit(size_t at, int64_t depth, int64_t& placed, std::vector<WalkedSequence>& sequences) const {
        const Node& node = nodes_[at];
        placed = std::min(placed, depth);
        depth += node.tokens;
        if (node.children.empty()) {
            sequences.push_back({placed, depth - placed});
            placed = depth;
        }
        for (const size_t child : node.children) visit(child, depth, placed, sequences);
    }

    const FamilyParameters& p_;
    int64_t left_;
    std::vector<Node> nodes_ = {{.tokens = 0}};
};

/// A share of the row, unless a length is given.
int64_t tokens_or(int64_t given, int64_t columns, int64_t share) {
    return given >= 0 ? given : columns / share;
}

std::vector<WalkedSequence> walk_agent_traces(const FamilyParameters& p) {
    const int64_t stem = tokens_or(p.stem, p.columns, 11), leaf = tokens_or(p.leaf, p.columns, 68);
    Forest forest(p);
    while (!forest.full()) {
        size_t trunk = forest.add(Forest::root, stem);
        for (int turn = 0; turn < 20 && !forest.full(); ++turn) {
            forest.add_leaf(trunk, leaf);
            if (!forest.full()) trunk = forest.add(trunk, leaf * 4 / 5);
        }
    }
    return forest.walk();
}

ColumnMask agent_traces(const FamilyParameters& p) {
    return tree_mask(p.columns, walk_agent_traces(p));
}

ColumnMask agent_traces_window(const FamilyParameters& p) {
    const auto sequences = walk_agent_traces(p);
    return tree_mask(p.columns, sequences).with_sliding_window(p.window, tree_positions(p.columns, sequences));
}

ColumnMask chats_behind_stem(const FamilyParameters& p) {
    const int64_t leaf = tokens_or(p.leaf, p.columns, 56);
    Forest forest(p);
    if (forest.full()) return tree_mask(0, {});
    const size_t stem = forest.add(Forest::root, tokens_or(p.stem, p.columns, 16));
    while (!forest.full()) forest.add_leaf(stem, leaf);
    return tree_mask(p.columns, forest.walk());
}

ColumnMask rollouts(const FamilyParameters& p) {
    const int64_t stem = tokens_or(p.stem, p.columns, 32), leaf = tokens_or(p.leaf, p.columns, 22);
    Forest forest(p);
    while (!forest.full()) {
        const size_t prompt = forest.add(Forest::root, stem);
        for (int answer = 0; answer < 8 && !forest.full(); ++answer) forest.add_leaf(prompt, leaf);
    }
    return tree_mask(p.columns, forest.walk());
}

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
    MaskFamily{"agent_traces", agent_traces},
    MaskFamily{"agent_traces_window", agent_traces_window},
    MaskFamily{"chats_behind_stem", chats_behind_stem},
    MaskFamily{"rollouts", rollouts},
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
