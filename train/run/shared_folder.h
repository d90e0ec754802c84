#pragma once
// Whether all ranks of a run see the same folder.

#include <string>

#include "engine/ranks/ranks.h"

namespace colonnade {

/// Throws Exit::config on all ranks, naming rank and machine, if a rank does not see what rank 0 makes in `output_dir`:
/// ranks that write one checkpoint together need a file system that all their machines share.
void require_shared_folder(const Ranks& ranks, const std::string& output_dir);

}  // namespace colonnade
