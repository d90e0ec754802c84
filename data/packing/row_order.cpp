#include "data/packing/row_order.h"

#include <algorithm>
#include <numeric>
#include <optional>

namespace colonnade {
namespace {

/// A node of the trie at which sequences part or end. Below it is what they have beyond its depth.
struct Node {
    int64_t depth;                     ///< tokens from the root
    std::optional<size_t> sequence{};  ///< that ends here
    std::vector<size_t> children{};
    int64_t tokens = 0;  ///< of the subtree, below the parent
};

/// Builds the trie from sequences in its order: the stack is the path to the last one.
class Trie {
  public:
    void add(size_t sequence, int64_t length, int64_t shared) {
        while (top().depth > shared) {
            const size_t child = path_.back();
            path_.pop_back();
            if (top().depth < shared) push({.depth = shared});
            attach(child);
        }
        push({.depth = length, .sequence = sequence});
    }

    /// The nodes; node 0 is the root.
    std::vector<Node> finish() {
        while (path_.size() > 1) {
            const size_t child = path_.back();
            path_.pop_back();
            attach(child);
        }
        return std::move(nodes_);
    }

  private:
    Node& top() { return nodes_[path_.back()]; }
    void push(Node node) {
        path_.push_back(nodes_.size());
        nodes_.push_back(std::move(node));
    }
    /// Makes a node whose subtree is complete a child of the top.
    void attach(size_t child) {
        nodes_[child].tokens += nodes_[child].depth - top().depth;
        top().tokens += nodes_[child].tokens;
        top().children.push_back(child);
    }

    std::vector<Node> nodes_ = {{.depth = 0}};
    std::vector<size_t> path_ = {0};
};

std::vector<Node> trie_of(const std::vector<std::vector<int32_t>>& sequences) {
    std::vector<size_t> order(sequences.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return sequences[a] < sequences[b]; });
    Trie trie;
    for (size_t k = 0; k < order.size(); ++k) {
        const std::vector<int32_t>& own = sequences[order[k]];
        int64_t shared = 0;
        if (k > 0) shared = std::ranges::mismatch(sequences[order[k - 1]], own).in2 - own.begin();
        trie.add(order[k], std::ssize(own), shared);
    }
    return trie.finish();
}

}  // namespace

std::vector<PlacedSequence> row_order(const std::vector<std::vector<int32_t>>& sequences) {
    std::vector<Node> nodes = trie_of(sequences);
    for (Node& node : nodes)
        std::ranges::stable_sort(node.children, [&](size_t a, size_t b) { return nodes[a].tokens > nodes[b].tokens; });
    std::vector<PlacedSequence> walk;
    struct Visit {
        size_t node;
        int64_t parent_depth;
    };
    std::vector<Visit> ahead = {{0, 0}};
    int64_t placed = 0;  // depth to which tokens of the current path have a place
    while (!ahead.empty()) {
        const auto [at, parent_depth] = ahead.back();
        ahead.pop_back();
        const Node& node = nodes[at];
        placed = std::min(placed, parent_depth);
        if (node.sequence) {
            walk.push_back({*node.sequence, placed});
            placed = node.depth;
        }
        for (auto child = node.children.rbegin(); child != node.children.rend(); ++child)
            ahead.push_back({*child, node.depth});
    }
    return walk;
}

}  // namespace colonnade
