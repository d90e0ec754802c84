#include "data/unigram.h"

#include <cmath>

#include "data/batch.h"

namespace colonnade {

double unigram_loss(const TokenStore& train, const TokenStore& eval, int64_t vocab_size) {
    std::vector<double> count(static_cast<size_t>(vocab_size), 1.0);
    double total = static_cast<double>(vocab_size);
    const auto for_each_target = [](const TokenStore& store, const auto& body) {
        for (int64_t i = 0; i < store.size(); ++i) {
            const Sample sample = store.sample(i);
            const Batch batch = make_batch({{&sample}});
            for (size_t t = 0; t < batch.targets.size(); ++t)
                body(static_cast<size_t>(batch.targets[t]), batch.weights[t]);
        }
    };
    for_each_target(train, [&](size_t token, double weight) {
        count[token] += weight;
        total += weight;
    });
    double nll = 0, weights = 0;
    for_each_target(eval, [&](size_t token, double weight) {
        nll -= weight * std::log(count[token] / total);
        weights += weight;
    });
    return weights > 0 ? nll / weights : 0;
}

}  // namespace colonnade
