#include "data/store/unigram.h"

#include <cmath>

namespace colonnade {

double unigram_loss(const TokenStore& train, const TokenStore& eval, int64_t vocab_size) {
    std::vector<double> count(static_cast<size_t>(vocab_size), 1.0);
    double total = static_cast<double>(vocab_size);
    const auto for_each_token = [](const TokenStore& store, const auto& body) {
        for (int64_t i = 0; i < store.size(); ++i) {
            const Sample sample = store.sample(i);
            for_each_target(sample.weights, sample.branch_begins, [&](int32_t token, int32_t, int32_t) {
                const auto at = static_cast<size_t>(token);
                body(static_cast<size_t>(sample.tokens[at]), sample.weights[at]);
            });
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
