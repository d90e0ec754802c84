#pragma once
// Shapes of published models, from their config.json on Hugging Face, so that a benchmark needs no model file.
// tests/train/bench/model_shapes_test.cpp checks them against the published parameter counts.

#include <string>
#include <string_view>
#include <vector>

#include "train/model/model_config.h"

namespace colonnade {

/// "qwen2.5-0.5b", "llama3.2-1b", ...: grouped by family, smallest first.
std::vector<std::string> model_shape_names();

/// Throws Exit::config for an unknown name, listing all names, the nearest first.
ModelConfig model_shape(std::string_view name);

}  // namespace colonnade
