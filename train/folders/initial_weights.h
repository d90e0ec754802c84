#pragma once
// The weights that a run starts from: those of a Hugging Face folder, random ones, and the adapters of a PEFT folder.

#include "train/config/config.h"
#include "train/step/learner.h"

namespace colonnade {

/// Loads what the config names: model_name_or_path, or random weights if it is empty; with LoRA that model is the base,
/// and the adapters are those of adapter_name_or_path, or fresh ones.
void load_or_initialize(const Config& config, Learner& learner);

/// Loads the model of a folder; random weights if `folder` is empty. If the folder holds a language model, it has no
/// score.weight: then that of a reward model is random. With LoRA the weights are the base's, and adapters are fresh:
/// they add nothing yet.
void load_model(const std::string& folder, uint64_t seed, Learner& learner);

/// Loads the base alone, with LoRA or frozen layers. A score.weight that the folder lacks is zero.
void load_base(const std::string& folder, Learner& learner);

}  // namespace colonnade
