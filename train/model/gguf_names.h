#pragma once
// The table of names of tensors in GGUF files and in Hugging Face's: "blk.3.attn_q.weight" is
// "model.layers.3.self_attn.q_proj.weight".

#include <optional>
#include <string>

namespace colonnade {

enum class TensorNames { gguf, hugging_face };

/// The name on the other side; nothing for a name that is not in the table.
std::optional<std::string> translated_name(const std::string& name, TensorNames from);

/// Holds Llama 3's scaling of the rotary embedding: what each frequency is divided by, [head_dim / 2].
inline constexpr const char* gguf_rope_tensor = "rope_freqs.weight";

}  // namespace colonnade
