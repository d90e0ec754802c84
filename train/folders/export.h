#pragma once
// Export: writes a Hugging Face folder that transformers, and every program that reads its folders, can load:
// config.json, model.safetensors (shards above 5 GB), generation_config.json and tokenizer files. The model's own
// tokenizer files and chat template stay as they are; a template that the config chose replaces it. A
// LoRA run exports its adapters as a PEFT folder, or the base with the adapters merged in: W + scale * B A, computed in
// f32. A run with frozen layers exports the whole model.

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/samples/encode.h"
#include "train/config/config.h"
#include "train/folders/checkpoint.h"
#include "train/step/learner.h"

namespace colonnade {

struct ExportRequest {
    std::string folder;  ///< created if missing; files of an older export in it are replaced
    const ModelConfig& config;
    ParameterList parameters;
    Tensor weights{};  ///< flat, in host memory: the model's, or the adapters'
    /// In their place: returns one weight of the model, so that not all of them are in host memory together.
    std::function<HostCopy(const Parameter&)> read{};
    /// f32, bf16 or f16; unset: that of the source (StoredWeights::export_dtype), f32 without one. If f16 cannot hold a
    /// weight, export_model throws Exit::numerics; an f16 that nobody asked for becomes f32, with a printed line.
    std::optional<DType> stored{};
    std::string source_folder;  ///< the model's folder or GGUF file, or empty; its config.json is kept except for the
                                ///< dtype, and for a head that is not tied any more
    std::string base{};         ///< what adapters name as their base, such as org/name@commit; empty: source_folder
    std::shared_ptr<const Encoder> encoder;  ///< provides tokenizer, chat template and stop ids
    std::string tokenizer_source;            ///< a folder or file, whose tokenizer files are copied; may be empty
    bool prints = true;                      ///< notes about what the files say; false: silent
    TokenAdditions additions{};              ///< what the encoder's tokenizer has beside them
};
/// How the names of what an export writes begin, for leftovers (engine/io/folder_lock.h).
inline constexpr std::string_view export_stems[] = {
    ".weights",      "config.json",        "generation_config.json", "tokenizer", "adapter_",
    "chat_template", "special_tokens_map", "added_tokens.json",      "vocab.",    "merges.txt"};

/// Writes each file under a temporary name and renames it; config.json comes last, so that a folder with a config.json
/// is complete. Returns the dtype of the weights.
DType export_model(const ExportRequest& request);

/// Writes adapter_config.json, adapter_model.safetensors, and tokenizer files, and removes the model of an older
/// export. adapter_config.json comes last.
void export_adapter(const ExportRequest& request, const LoraSettings& lora);

/// Merges the adapters of a learner on the CPU into its base and exports the result. The learner cannot be used
/// afterwards.
DType export_merged(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                    const std::string& folder, std::optional<DType> stored = {});
/// Exports the merged model of a learner that is still needed, or that is on a GPU: reads the base again. `adapters`:
/// all of Learner::weights() in host memory.
void export_merged_copy(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                        const Tensor& adapters, const std::string& folder);

/// What makes a checkpoint's folder a Hugging Face folder as well: the files of export_model(); with LoRA, whose adapters
/// are there already, the tokenizer files. Silent. Config and learner must outlive the result.
FurtherFiles hugging_face_files(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner);

/// The request to export what a run of `config` trained to `folder`.
ExportRequest export_request(const Config& config, std::shared_ptr<const Encoder> encoder, const Learner& learner,
                             const std::string& folder, std::optional<DType> stored = {});
/// Exports the whole model of a request for the trained part of a model whose other layers are frozen.
DType export_with_frozen(ExportRequest request, const Learner& learner);

}  // namespace colonnade
