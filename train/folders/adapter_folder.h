#pragma once
// Adapters as PEFT (https://github.com/huggingface/peft) reads and writes them:
//
//     adapter_config.json        rank, alpha, targets, and the base model
//     adapter_model.safetensors  "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" and so on
//
// Checkpoints of LoRA runs contain these two files, and so does the output folder of a finished run.

#include <string>

#include "train/model/lora.h"

namespace colonnade {

/// True if the folder has an adapter_config.json.
bool is_adapter_folder(const std::string& folder);

struct AdapterConfig {
    LoraSettings lora;
    std::string base;         ///< base_model_name_or_path, with @revision if there is one; may be empty
    bool score_head = false;  ///< adapters of a reward model (task_type SEQ_CLS), with its score.weight
};
/// Throws Exit::data naming the key if a value is missing, mistyped, or asks for more than plain LoRA on linear layers
/// and a head (DoRA, ranks by layer, PiSSA, ...). A key that Colonnade does not know must be absent, null, false or
/// empty.
AdapterConfig read_adapter_config(const std::string& folder);

/// Fills `flat` (host memory), laid out by `list`. Throws Exit::data for missing, unexpected and misshapen tensors.
void load_adapter(const std::string& folder, const ParameterList& list, const Tensor& flat);

/// Writes `flat` (host memory) as f32. A "score.weight" in `list` marks the adapters of a reward model. Not atomic by
/// itself; adapter_config.json is written last.
void write_adapter(const std::string& folder, const AdapterConfig& config, const ParameterList& list,
                   const Tensor& flat);

/// Removes the two files if they exist. The config is gone from the disk before the weights are touched.
void remove_adapter(const std::string& folder);

}  // namespace colonnade
