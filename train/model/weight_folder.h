#pragma once
// The weights of a model, from a Hugging Face folder or a GGUF file, by the names of train/model/parameter_table.h.

#include "train/model/parameters.h"
#include "train/model/stored_weights.h"

namespace colonnade {

/// The constructor lists all missing, unexpected and misshapen tensors in one error (Exit::data). It skips
/// `...rotary_emb.inv_freq`. A tied model may store its embedding as lm_head.weight alone, or twice; if the two differ,
/// the constructor throws, because one would be lost (read_model_config unties such a model). A reward model may start
/// from a language model: then lm_head.weight is skipped, and score.weight may be missing. The embedding and the head
/// may have more rows than in the folder, which has as many as its own config.json says: those are the mean of the
/// others.
class WeightFolder {
  public:
    WeightFolder(const ParameterList& list, const ModelConfig& config, const std::string& path);
    bool has(const Parameter& parameter) const { return find(parameter) != nullptr; }
    /// `into`: contiguous, in host memory, with as many elements as the parameter.
    void read(const Parameter& parameter, const Tensor& into) const;

  private:
    const TensorInfo* find(const Parameter& parameter) const;

    StoredWeights weights_;
    bool tied_;
};
/// Reads every parameter that the folder has; a missing score.weight keeps what `flat` holds.
void load_weights(const ParameterList& list, const ModelConfig& config, const std::string& path, const Tensor& flat);

/// (name, view) of every parameter in a flat buffer, in the order of forward: embedding first, head last.
std::vector<NamedTensor> named_tensors(const ParameterList& list, const Tensor& flat);

}  // namespace colonnade
