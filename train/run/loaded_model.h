#pragma once
// LoadedModel: a model and its text, ready to generate, from any folder or file that holds one:
//
//     a Hugging Face folder, a GGUF file   the model
//     a PEFT folder of adapters            on the base that adapter_config.json names
//     checkpoint-<step> of a run           its model, or its adapters; text and template as its config.yaml says
//     output_dir of a run without a model  its newest checkpoint

#include <memory>

#include "data/samples/encode.h"
#include "engine/device/arena.h"
#include "engine/io/json.h"
#include "train/model/lora.h"

namespace colonnade {

struct WholeCheckpoint;

struct LoadRequest {
    std::string model{};          ///< folder, file, or name on a hub
    std::string base{};           ///< of adapters; empty: the one that they name
    std::string tokenizer{};      ///< folder or file; empty: the model's
    std::string chat_template{};  ///< as for choose_template(); empty: the model's or the run's
    Json template_variables = Json::object();
    bool allow_spelled_out_markers = false;
    Gpu* gpu = nullptr;  ///< null: the CPU
    bool text = true;    ///< false: the weights alone
};

class LoadedModel {
  public:
    /// Throws Exit::config for a base that is not given and not found, Exit::data for files that hold no model, for
    /// damaged ones, and for reward models, which cannot generate.
    explicit LoadedModel(LoadRequest request);

    const ModelConfig& config() const { return config_; }
    /// On a GPU all bf16. On the CPU matrices are bf16 if the files hold bf16, else f32; all else is f32.
    const ModelParameters& weights() const { return views_; }
    const std::optional<LoraSettings>& lora() const { return lora_; }
    const Encoder& encoder() const { return *encoder_; }  ///< only with LoadRequest::text
    const std::vector<std::string>& notices() const { return notices_; }
    size_t weight_bytes() const { return bytes_; }
    /// False without a GPU, and for a model that its kernels do not take.
    bool on_gpu() const { return gpu_ != nullptr; }

  private:
    void load_stored(const std::string& path);
    /// `base`: the model of which the checkpoint has the trained layers; unused if it has all.
    void load_checkpoint_weights(const WholeCheckpoint& checkpoint, const std::string& base);
    void load_adapters(const std::string& folder);
    void load_text(const LoadRequest& request, const std::string& checkpoint, const std::string& base);
    /// Memory on the model's device, which lives as long as this object.
    Tensor allocate(DType dtype, int64_t elements);

    Gpu* gpu_;
    ModelConfig config_;
    std::optional<LoraSettings> lora_;
    std::vector<std::shared_ptr<void>> memory_;
    size_t bytes_ = 0;
    ModelParameters views_;
    std::unique_ptr<Encoder> encoder_;
    std::vector<std::string> notices_;
};

}  // namespace colonnade
