#pragma once
// Weights in Hugging Face's safetensors files, under the names of train/model/parameter_table.h.

#include "engine/io/safetensors.h"
#include "train/model/parameters.h"

namespace colonnade {

/// The weights of a Hugging Face folder. The constructor lists all missing, unexpected and misshapen tensors in one
/// error (Exit::data). It skips `...rotary_emb.inv_freq` and the lm_head.weight of a tied head. A reward model may
/// start from a language model: then lm_head.weight is skipped, and score.weight may be missing.
class WeightFolder {
  public:
    WeightFolder(const ParameterList& list, const ModelConfig& config, const std::string& folder);
    bool has(const Parameter& parameter) const { return reader_.find(parameter.name) != nullptr; }
    /// `into`: contiguous, in host memory, with as many elements as the parameter.
    void read(const Parameter& parameter, const Tensor& into) const {
        reader_.read(*reader_.find(parameter.name), into);
    }

  private:
    SafetensorsReader reader_;
};
/// Reads every parameter that the folder has; a missing score.weight keeps what `flat` holds.
void load_weights(const ParameterList& list, const ModelConfig& config, const std::string& folder, const Tensor& flat);

/// (name, view) of every parameter in a flat buffer, in the order of forward: embedding first, head last.
std::vector<NamedTensor> named_tensors(const ParameterList& list, const Tensor& flat);

}  // namespace colonnade
