#pragma once
// A model in a GGUF file: its config.json, made from the metadata, and its weights under the names and in the layout of
// Hugging Face's files. llama.cpp's architectures llama (Llama and Mistral), qwen2 and qwen3 are supported.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/io/gguf.h"
#include "engine/io/json.h"

namespace colonnade {

/// "model.layers.3.self_attn.q_proj.weight" for "blk.3.attn_q.weight"; nothing for a name that is not in the table.
std::optional<std::string> hugging_face_name(const std::string& gguf_name);

/// A config.json that parse_model_config accepts. Throws Exit::data naming file and key for another architecture, a
/// missing key, and every setting that Colonnade would not follow (experts, windows, partial rotary embedding, unknown
/// scaling of the rotary embedding). The head is tied if the file has no output.weight. Llama 3's scaling, which GGUF
/// stores as the tensor rope_freqs.weight, is recognised by its numbers.
Json gguf_config(const GgufReader& file);

/// The weights of a GGUF file, with the interface of SafetensorsReader.
class GgufWeights {
  public:
    explicit GgufWeights(const std::string& path);
    const GgufReader& file() const { return file_; }
    /// All tensors but rope_freqs.weight, under Hugging Face's names; a tensor without one keeps its own.
    const std::vector<TensorInfo>& tensors() const { return tensors_; }
    const TensorInfo* find(const std::string& name) const;
    /// Reads as GgufReader::read does. In the architecture llama the rows of q and k are stored in the order of a rotary
    /// embedding of neighbouring pairs: (2i, 2i + 1) of a head are rows (i, i + head_dim / 2) here.
    void read(const TensorInfo& info, const Tensor& into) const;

  private:
    int64_t permuted_heads(const TensorInfo& info) const;  // 0: the rows are in order

    GgufReader file_;
    std::vector<TensorInfo> tensors_;
    std::map<std::string, size_t> index_;
    int64_t q_heads_ = 0, k_heads_ = 0;  // of an architecture with permuted rows
};

}  // namespace colonnade
