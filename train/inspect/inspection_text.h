#pragma once
// An inspection for the terminal.

#include "data/sample_text.h"
#include "train/inspect/inspection.h"

namespace colonnade {

/// The packed row in strips of `columns` characters above its mask, its samples, what is suspicious, and the text of
/// sample `shown`, an index into `samples`. Masks alone are printed as tiles.
std::string inspection_text(const Inspection& all, size_t shown, int64_t columns, LearnedMark mark);

}  // namespace colonnade
