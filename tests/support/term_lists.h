#pragma once
// TermLists: the lists of layers/policy_terms.h, from the targets of each sequence.

#include <vector>

#include "layers/policy_terms.h"

namespace colonnade {

struct TermLists {
    std::vector<int32_t> begins = {0}, sequences, targets, target_begins = {0}, target_terms;
    std::vector<float> weights;
    std::vector<double> lengths;

    /// `weight` is called with the number of each term.
    template <typename Weight>
    TermLists(const std::vector<std::vector<int32_t>>& of_sequences, int32_t target_count, Weight&& weight) {
        for (const auto& list : of_sequences) {
            lengths.push_back(0);
            for (const int32_t target : list) {
                sequences.push_back(static_cast<int32_t>(lengths.size()) - 1);
                targets.push_back(target);
                weights.push_back(static_cast<float>(weight(weights.size())));
                lengths.back() += static_cast<double>(weights.back());
            }
            begins.push_back(terms());
        }
        for (int32_t i = 0; i < target_count; ++i) {
            for (int32_t t = 0; t < terms(); ++t)
                if (targets[static_cast<size_t>(t)] == i) target_terms.push_back(t);
            target_begins.push_back(static_cast<int32_t>(target_terms.size()));
        }
    }
    TermLists(const std::vector<std::vector<int32_t>>& of_sequences, int32_t target_count)
        : TermLists(of_sequences, target_count, [](size_t) { return 1; }) {}

    int32_t terms() const { return static_cast<int32_t>(targets.size()); }
    double total() const {
        double sum = 0;
        for (const double length : lengths) sum += length;
        return sum;
    }
};

}  // namespace colonnade
