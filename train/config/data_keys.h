#pragma once
// The config's keys about data sets, and about what of a row is learned.

#include "train/config/keys.h"

namespace colonnade {

Section data_section();
Section labels_section();

}  // namespace colonnade
