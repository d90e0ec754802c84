#pragma once
// Masks as they are drawn.

#include "train/inspect/inspection.h"
#include "train/model/model_config.h"

namespace colonnade {

/// The tiles of the first sheet (batch 0, head 0) of a mask, at most 64 on a side.
TilePicture tile_picture(const ColumnMask& mask);

/// The first sheet of a mask.
InspectedMask inspected_mask(const std::string& name, const ColumnMask& mask);

/// The masks that the layers of a model see over one packed row: one for each sliding window.
std::vector<InspectedMask> masks_of_layers(const ModelConfig& model, const ColumnMask& mask,
                                           std::span<const int32_t> positions);

}  // namespace colonnade
