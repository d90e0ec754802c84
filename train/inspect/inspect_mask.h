#pragma once
// Masks as they are drawn.

#include "train/inspect/inspection.h"
#include "train/model/model_config.h"

namespace colonnade {

/// The first sheet of a mask.
InspectedMask inspected_mask(const std::string& name, const ColumnMask& mask);

/// The masks that the layers of a model see over one packed row: one for each sliding window.
std::vector<InspectedMask> masks_of_layers(const ModelConfig& model, const ColumnMask& mask,
                                           std::span<const int32_t> positions);

}  // namespace colonnade
