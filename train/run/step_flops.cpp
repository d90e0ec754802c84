#include "train/run/step_flops.h"

#include <map>

namespace colonnade {

double over_layers(const ModelConfig& config, const std::function<double(int64_t window)>& pairs_of) {
    std::map<int64_t, double> of_window;
    double sum = 0;
    for (const int64_t window : config.windows) {
        const auto [known, is_new] = of_window.try_emplace(window, 0);
        if (is_new) known->second = pairs_of(window);
        sum += known->second;
    }
    return sum;
}

double causal_pairs(double begin, double end, double window) {
    const auto triangle = [](double n) { return n * (n + 1) / 2; };
    if (window <= 0 || end <= window) return triangle(end) - triangle(begin);
    const double narrow = std::max(begin, window);  // from there on every token sees `window` tokens
    return triangle(narrow) - triangle(begin) + (end - narrow) * window;
}

int64_t visible_pairs(const ModelConfig& config, const Batch& batch) {
    const ColumnMask& mask = batch.mask;
    require(mask.causal && mask.vectors == MaskVectors::lts && mask.heads == 1 && mask.rows == mask.columns,
            "a batch's mask is causal and hides rows from lts on");
    return static_cast<int64_t>(over_layers(config, [&](int64_t window) {
        int64_t pairs = 0;
        for (size_t i = 0; i < mask.lts.size(); ++i) {
            // A row sees itself and the tokens before it in its sample, whose number is its position. Padding sees
            // nothing.
            if (mask.lts[i] <= static_cast<int64_t>(i) % mask.columns) continue;
            const int64_t seen = batch.positions[i] + int64_t{1};
            pairs += window > 0 ? std::min(seen, window) : seen;
        }
        return static_cast<double>(pairs);
    }));
}

StepAmounts StepAmounts::of(const ModelConfig& config, const Batch& batch) {
    return {.tokens = static_cast<double>(batch.real_tokens),
            .targets = static_cast<double>(batch.targets.size()),
            .sequences = static_cast<double>(batch.sequences.size()),
            .pairs = static_cast<double>(visible_pairs(config, batch))};
}

StepFlops useful_flops(const ModelConfig& m, const StepAmounts& amounts, const StepWork& work) {
    const LoraSettings* const lora = work.lora;
    const int64_t block = m.hidden_size * (m.qkv_width() + m.query_width() + 3 * m.intermediate_size);
    const double blocks = static_cast<double>(m.num_hidden_layers * block) * amounts.tokens;
    const double head = static_cast<double>(m.hidden_size) *
                        (m.score_head ? amounts.sequences : static_cast<double>(m.vocab_size) * amounts.targets);
    const double pairs = static_cast<double>(m.query_width()) * amounts.pairs;
    int64_t adapters = 0;
    if (lora) {
        const ParameterList list = lora_parameters(m, *lora);
        for (const Parameter& p : list.all()) adapters += p.is_adapter() ? p.size() : 0;
    }
    StepFlops flops{.products = (lora ? 4 : 6) * blocks + (lora && !lora->head ? 4 : 6) * head +
                                6 * static_cast<double>(adapters) * amounts.tokens,
                    .attention = 12 * pairs};
    if (work.reference_forward) {
        flops.products += 2 * blocks + 2 * head;
        flops.attention += 4 * pairs;
    }
    return flops;
}

double useful_flops(const ModelConfig& config, const Batch& batch, const StepWork& work) {
    return useful_flops(config, StepAmounts::of(config, batch), work).total();
}

}  // namespace colonnade
