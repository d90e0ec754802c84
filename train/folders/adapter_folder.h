#pragma once
// Adapters as PEFT (https://github.com/huggingface/peft) reads and writes them:
//
//     adapter_config.json        rank, alpha, targets, the model they belong to
//     adapter_model.safetensors  "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" and so on
//
// Checkpoints of LoRA runs hold these two files, the output folder of a run that is done too.

#include <string>

#include "train/model/lora.h"

namespace colonnade {

/// There is an adapter_config.json in it.
bool is_adapter_folder(const std::string& folder);

struct AdapterConfig {
    LoraSettings lora;
    std::string base;         ///< base_model_name_or_path; may be empty
    bool score_head = false;  ///< adapters of a reward model (task_type SEQ_CLS); its score.weight is among them
};
/// Throws Exit::data naming the key for what is missing, mistyped, or more than plain LoRA on linear layers and a head
/// (DoRA, ranks by layer, ...).
AdapterConfig read_adapter_config(const std::string& folder);

/// Fills `flat` (host memory), laid out by `list`. Missing, unexpected and misshapen tensors: Exit::data.
void load_adapter(const std::string& folder, const ParameterList& list, const Tensor& flat);

/// `flat` in host memory, stored as f32; a "score.weight" in `list` makes them those of a reward model. Not atomic by itself; adapter_config.json comes last.
void write_adapter(const std::string& folder, const AdapterConfig& config, const ParameterList& list,
                   const Tensor& flat);

/// The two files, where they are there.
void remove_adapter(const std::string& folder);

}  // namespace colonnade
