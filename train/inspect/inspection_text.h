#pragma once
// An inspection for the terminal.

#include "data/sample_text.h"
#include "train/inspect/inspection.h"

namespace colonnade {

/// The packed row in strips of `columns` characters above its mask, its samples, what was noted about rows, and the text
/// of the sample to begin with. Masks alone are printed as tiles.
std::string inspection_text(const Inspection& all, int64_t columns, LearnedMark mark);

}  // namespace colonnade
