#include "data/store/unigram.h"

#include <cmath>

namespace colonnade {

double unigram_loss(const TokenStore& train, const TokenStore& eval, int64_t vocab_size) {
    std::vector<double> count(static_cast<size_t>(vocab_size), 1.0);
    double total = static_cast<double>(vocab_size);
    const auto for_each_token = [](const TokenStore& store, const auto& body) {
        for (int64_t i = 0; i < store.size(); ++i) {
            const Sample sample = store.sample(i);
            for (size_t s = 0; s < sample.sequences.size(); ++s) {
                const std::vector<int32_t> tokens = sample.whole(s);
                for (const auto& [begin, end, weight] : sample.sequences[s].learned)
                    for (int32_t at = begin; at < end; ++at)
                        body(static_cast<size_t>(tokens[static_cast<size_t>(at)]), weight);
            }
        }
    };
    for_each_token(train, [&](size_t token, double weight) {
        count[token] += weight;
        total += weight;
    });
    double nll = 0, weights = 0;
    for_each_token(eval, [&](size_t token, double weight) {
        nll -= weight * std::log(count[token] / total);
        weights += weight;
    });
    return weights > 0 ? nll / weights : 0;
}

}  // namespace colonnade
