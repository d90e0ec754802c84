#pragma once
// An inspection as pixels.

#include "engine/io/png.h"
#include "train/inspect/inspection.h"

namespace colonnade {

/// From top to bottom, for each mask: a strip of the samples, each in a colour of its own, pale on tokens that several
/// sequences share; a strip of what is learned; the mask, keys to the right and queries down, visible pairs in the colour
/// of the key's sample. A row of more than `most` tokens is scaled down to so many pixels, a short one up.
PixelPicture picture_of(const Inspection& all, int64_t most = 1024);

}  // namespace colonnade
