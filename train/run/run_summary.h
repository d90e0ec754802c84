#pragma once
// The end of a run: the figures and loss curves that `train` prints.

#include <cstdint>
#include <string>

#include "train/config/config.h"

namespace colonnade {

struct RunSummary {
    int64_t steps = 0;               ///< of this process
    double tokens = 0, seconds = 0;  ///< of this process
    double fill = 0;                 ///< share of the packs' positions that hold a token
    std::string eval{};              ///< figures of the last evaluation; empty if there was none
    double unigram_loss = 0;         ///< baseline for the evaluation loss; 0: none
};

/// The folder of the merged model (export_merged).
std::string merged_folder(const Config& config);

/// Prints figures and, if the run has a metrics.jsonl, its loss curves. These cover the whole log, including the time
/// before a resume.
void print_summary(const Config& config, const RunSummary& run);

}  // namespace colonnade
