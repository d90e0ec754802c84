#pragma once
// Export: a Hugging Face folder that transformers (and everything that reads its folders) loads: config.json,
// model.safetensors (shards above 5 GB), generation_config.json, tokenizer files, and colonnade.json, which names the
// chat template the model was trained with. That template also replaces the one in tokenizer_config.json. Of a LoRA run:
// the adapters as a PEFT folder, or the base with the adapters merged in, W + scale * B A computed in f32.

#include <memory>
#include <string>

#include "data/samples/encode.h"
#include "train/config/config.h"
#include "train/step/learner.h"

namespace colonnade {

struct ExportRequest {
    std::string folder;  ///< made where missing; files of an older export in it are replaced
    const ModelConfig& config;
    const ParameterList& parameters;
    Tensor weights;             ///< flat; of adapters: theirs
    Gpu* gpu = nullptr;         ///< where they live; null: in host memory
    DType stored = DType::f32;  ///< f32, bf16 or f16
    std::string source_folder;  ///< the model's folder, or empty: its config.json is kept, but for the dtype
    std::shared_ptr<const Encoder> encoder;  ///< gives tokenizer, chat template and stop ids
    std::string tokenizer_folder;            ///< tokenizer files are copied from here
};
/// Each file is written under a temporary name and renamed; config.json comes last, so that a folder that has one is
/// whole.
void export_model(const ExportRequest& request);

/// adapter_config.json, adapter_model.safetensors, tokenizer files and colonnade.json; a model that an older export left
/// there is removed. adapter_config.json comes last.
void export_adapter(const ExportRequest& request, const LoraSettings& lora);

/// What the base's weights are stored in: f32, bf16 or f16.
DType stored_dtype(const std::string& model_folder);

/// Merges the adapters of a learner on the CPU into its base and exports that. The learner is of no use any more.
void export_merged(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                   const std::string& folder, DType stored);
/// The same for a learner that is still needed, or lives on a GPU: reads the base again. `adapters`: Learner::weights(),
/// whole, in host memory.
void export_merged_copy(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                        const Tensor& adapters, const std::string& folder);

/// What a run of `config` exports to `folder`.
ExportRequest export_request(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                             const std::string& folder, DType stored = DType::f32);

}  // namespace colonnade
