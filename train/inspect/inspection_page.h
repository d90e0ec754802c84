#pragma once
// An inspection as a page: one HTML file that loads nothing. Suspicious rows, a picture of the packed row with its mask,
// the samples token by token, lengths and fill. The fragment #sample=3 opens the page at its third sample.

#include <string>

#include "train/inspect/inspection.h"

namespace colonnade {

/// Texts that are not UTF-8 are shown with U+FFFD. Parts of which the inspection has nothing are left out.
std::string inspection_page(const Inspection& inspection);

}  // namespace colonnade
