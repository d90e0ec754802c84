#pragma once
// StoredWeights: the tensors of a model, from a Hugging Face folder (safetensors) or a GGUF file, under Hugging Face's
// names and in its layout.

#include <variant>

#include "train/model/gguf_model.h"
#include "train/model/safetensors_weights.h"

namespace colonnade {

/// True for a folder with weights in safetensors, and for a GGUF file.
bool has_stored_weights(const std::string& path);

class StoredWeights {
  public:
    /// `path`: a folder, a .safetensors file or a .gguf file. Throws Exit::data as the readers do. For a folder with
    /// other formats, such as pytorch_model.bin, the error names the file that was found and the way out.
    explicit StoredWeights(const std::string& path);

    const std::vector<TensorInfo>& tensors() const;
    const TensorInfo* find(const std::string& name) const;
    void read(const TensorInfo& info, const Tensor& into) const;
    /// Whether the file has both an lm_head.weight and an embedding, and they are not the same, byte for byte.
    bool head_differs_from_embedding() const;
    /// The dtype in which an export keeps the weights: that of most elements (f32, bf16 or f16). Quantised weights
    /// become bf16: the steps of their blocks are coarser than its rounding.
    DType export_dtype() const;

  private:
    std::variant<SafetensorsWeights, GgufWeights> reader_;
};

/// Throws Exit::data for a path without a model, and says what is there: no such folder, a name on the Hugging Face
/// hub, weights in a format that Colonnade does not read, a GGUF file to be named itself. `missing`: what was expected.
[[noreturn]] void refuse_model_path(const std::string& path, const std::string& missing);

}  // namespace colonnade
