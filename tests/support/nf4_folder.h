#pragma once
// The weights of a model as transformers saves them with bitsandbytes' 4 bits.

#include <cstring>
#include <memory>

#include "engine/io/safetensors.h"
#include "layers/quantised_matrix.h"
#include "train/model/parameters.h"

namespace colonnade {

/// Writes model.safetensors with the matrices of blocks in nf4, and widens them in `flat` (f32).
inline void write_nf4_weights(const std::string& folder, const ParameterList& list, const Tensor& flat) {
    std::vector<NamedTensor> stored;
    std::vector<std::unique_ptr<Arena>> kept;
    std::vector<std::string> states;
    states.reserve(list.all().size());
    for (const Parameter& p : list.all()) {
        const Tensor values = slice_of(flat, p);
        if (!entry_of(p.role).is_projection_weight()) {
            stored.push_back({p.name, values, p.shape});
            continue;
        }
        const int64_t rows = p.shape[0], columns = p.shape[1];
        kept.push_back(std::make_unique<Arena>(Device::cpu, size_t{1} << 20));
        const QuantisedMatrix m = QuantisedMatrix::lay_out(*kept.back(), "", WeightCode::nf4, rows, columns);
        quantise({.out = m, .in = values, .name = p.name.c_str()});
        dequantise({}, {.out = values.view({rows, columns}), .in = m});
        const int64_t groups = m.nested.numel() - 1;
        std::string& state =
            states.emplace_back(fmt::format(R"({{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", )"
                                            R"("shape": [{}, {}], "nested_blocksize": 256, "nested_offset": {:.9g}}})",
                                            rows, columns, m.nested.as<float>()[groups]));
        const auto add = [&](const std::string& part, const Tensor& t) {
            stored.push_back({p.name + part, t, {t.numel()}});
        };
        stored.push_back({p.name, m.codes, {m.codes.numel(), 1}});
        add(".absmax", m.scales);
        add(".nested_absmax", m.nested.slice(0, 0, groups));
        add(".nested_quant_map", m.map);
        add(".quant_map", Tensor(const_cast<float*>(nf4_values), DType::f32, {16}));
        add(".quant_state.bitsandbytes__nf4", Tensor(state.data(), DType::u8, {std::ssize(state)}));
    }
    write_safetensors(folder, stored);
}

}  // namespace colonnade
