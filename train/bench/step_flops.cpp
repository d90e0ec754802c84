#include "train/bench/step_flops.h"

#include <map>

namespace colonnade {

int64_t visible_pairs(const ModelConfig& config, const Batch& batch) {
    const ColumnMask& mask = batch.mask;
    require(mask.causal && mask.vectors == MaskVectors::lts && mask.heads == 1 && mask.rows == mask.columns,
            "a batch's mask is causal and hides rows from lts on");
    std::map<int64_t, int64_t> pairs_of_window;
    int64_t sum = 0;
    for (const int64_t window : config.windows) {
        const auto [known, is_new] = pairs_of_window.try_emplace(window, 0);
        if (is_new) {
            for (size_t i = 0; i < mask.lts.size(); ++i) {
                // A row sees itself and the tokens before it in its sample, whose number is its position. Padding sees
                // nothing.
                if (mask.lts[i] <= static_cast<int64_t>(i) % mask.columns) continue;
                const int64_t seen = batch.positions[i] + int64_t{1};
                known->second += window > 0 ? std::min(seen, window) : seen;
            }
        }
        sum += known->second;
    }
    return sum;
}

double useful_flops(const ModelConfig& m, const Batch& batch, const StepWork& work) {
    const LoraSettings* const lora = work.lora;
    const auto tokens = static_cast<double>(batch.real_tokens);
    const int64_t block = m.hidden_size * (m.qkv_width() + m.query_width() + 3 * m.intermediate_size);
    const double blocks = static_cast<double>(m.num_hidden_layers * block) * tokens;
    const double head = static_cast<double>(m.hidden_size) *
                        (m.score_head ? static_cast<double>(batch.sequences.size())
                                      : static_cast<double>(m.vocab_size) * static_cast<double>(batch.targets.size()));
    const double pairs = static_cast<double>(m.query_width()) * static_cast<double>(visible_pairs(m, batch));
    int64_t adapters = 0;
    if (lora) {
        const ParameterList list = lora_parameters(m, *lora);
        for (const Parameter& p : list.all()) adapters += p.is_adapter() ? p.size() : 0;
    }
    const double step = (lora ? 4 : 6) * blocks + (lora && !lora->head ? 4 : 6) * head + 12 * pairs +
                        6 * static_cast<double>(adapters) * tokens;
    const double forward = 2 * blocks + 2 * head + 4 * pairs;
    return step + (work.reference_forward ? forward : 0);
}

double dense_bf16_peak(std::string_view device_name) {
    const auto has = [&](const char* part) { return device_name.find(part) != std::string_view::npos; };
    // Slices of a device, and cards with fewer units or less power, have other peaks.
    if (has("MIG") || has("NVL") || (has("H100") && has("PCIe"))) return 0;
    if (has("H100") || has("H200")) return 989.5e12;
    if (has("A100")) return 312e12;
    return 0;
}

}  // namespace colonnade
