#pragma once
// Reads golden.safetensors (tests/golden/make_golden.py): tensors by name, and their batch.

#include "data/packing/batch.h"
#include "engine/io/safetensors.h"

namespace colonnade {

template <typename T>
std::vector<T> golden_values(const SafetensorsReader& file, const std::string& name) {
    const TensorInfo* info = file.find(name);
    if (!info) throw std::runtime_error(file.tensors().front().file + ": no tensor " + name);
    std::vector<T> values(static_cast<size_t>(info->numel()));
    file.read(*info, Tensor(values.data(), dtype_of<T>(), {info->numel()}));
    return values;
}

inline Batch golden_batch(const SafetensorsReader& file) {
    Batch b;
    b.packs = file.find("input_ids")->shape[0];
    b.length = file.find("input_ids")->shape[1];
    b.tokens = golden_values<int32_t>(file, "input_ids");
    b.positions = golden_values<int32_t>(file, "positions");
    b.rows = golden_values<int32_t>(file, "rows");
    b.targets = golden_values<int32_t>(file, "targets");
    for (const float w : golden_values<float>(file, "weights")) b.weights.push_back(w);
    for (const double w : b.weights) b.target_weight += w;
    std::vector<std::vector<int64_t>> ends(static_cast<size_t>(b.packs));
    for (const int32_t end : golden_values<int32_t>(file, "document_ends")) {
        const int64_t pack = (end - 1) / b.length;
        ends[static_cast<size_t>(pack)].push_back(end - pack * b.length);
    }
    std::vector<ColumnMask> masks;
    for (const auto& e : ends) masks.push_back(causal_document_mask(b.length, e));
    b.mask = stack(masks);
    return b;
}

}  // namespace colonnade
