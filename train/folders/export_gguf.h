#pragma once
// Export to GGUF, the file of llama.cpp and of the programs that are built on it. A model with its tokenizer and chat
// template becomes one file, LoRA adapters another (`general.type` adapter). The file is written under a temporary name
// and renamed; memory holds one tensor of it at a time.

#include <functional>

#include "data/text/gguf_text.h"
#include "train/model/gguf_export.h"
#include "train/model/lora.h"

namespace colonnade {

struct GgufRequest {
    std::string path;           ///< of the new file; its stem is the model's general.name
    const ModelConfig& config;  ///< of an adapter: that of its base
    GgufText text{};            ///< of a model
    /// F32, F16, BF16 or Q8_0, for matrices; train/model/gguf_export.h says which are stored otherwise.
    const GgufType* type = nullptr;
    /// Fills f32 host memory with a parameter.
    std::function<void(const Parameter&, const Tensor&)> read{};
};
/// Returns one line for everything that llama.cpp does otherwise than Colonnade. Throws Exit::data for what it cannot do
/// at all, Exit::numerics for a weight that the type cannot hold.
std::vector<std::string> export_gguf(const GgufRequest& request);

/// Writes the adapters `flat` (f32, host memory), laid out by `list`, as F32. llama.cpp's scale is alpha / rank: with
/// rsLoRA alpha is multiplied by sqrt(rank). Throws Exit::data for what it has no rule for: a head that was trained
/// whole, and alpha 0, which it takes for 1 / scale.
void export_gguf_adapter(const GgufRequest& request, const LoraSettings& lora, const ParameterList& list,
                         const Tensor& flat);

}  // namespace colonnade
