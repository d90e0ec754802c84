#pragma once
// Toy preferences for whole training runs.

#include <cmath>

#include "tiny_run.h"

namespace colonnade {

/// Pairs over one prompt of two tokens: the chosen answer follows the chain of chain_rows(), the rejected one another.
inline std::string pair_rows(int64_t rows, uint64_t seed = 1) {
    const Philox random{seed, 3};
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
        const auto draw = static_cast<uint64_t>(4 * row);
        const auto chain = [&](int64_t first, int64_t length, int64_t factor) {
            std::vector<int64_t> ids;
            for (int64_t id = first; std::ssize(ids) < length; id = (factor * id + 3) % chain_vocab) ids.push_back(id);
            return ids;
        };
        const auto first = static_cast<int64_t>(random.below(draw, chain_vocab));
        const std::vector<int64_t> prompt = chain(first, 2, 7);
        const int64_t next = (7 * prompt[1] + 3) % chain_vocab;
        const auto length = [&](uint64_t i) { return 3 + static_cast<int64_t>(random.below(draw + i, 20)); };
        text +=
            fmt::format("{{\"prompt_input_ids\": [{}], \"chosen_input_ids\": [{}], \"rejected_input_ids\": [{}]}}\n",
                        fmt::join(prompt, ", "), fmt::join(chain(next, length(1), 7), ", "),
                        fmt::join(chain((next + 1) % chain_vocab, length(2), 5), ", "));
    }
    return text;
}

/// What a run logged under `key` at a step.
inline double value_at(const std::vector<Json>& log, const std::string& key, int64_t step) {
    for (const Json& line : log)
        if (line.at("step") == step && line.contains(key)) return line.at(key);
    ADD_FAILURE() << "no " << key << " at step " << step;
    return NAN;
}

}  // namespace colonnade
