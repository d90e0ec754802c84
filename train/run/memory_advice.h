#pragma once
// What a run that does not fit into memory can set so that it does.

#include <string>
#include <vector>

#include "train/run/fit.h"

namespace colonnade {

struct MemoryAdvice {
    std::vector<std::string> settings{};  ///< as on the command line: "gradient_checkpointing=block"
    MemoryNeed need{};                    ///< what the run then needs
    bool fits = false;                    ///< false: these settings need the least, and still too much
};

/// Settings with which the plan has room: those of train/run/fit.h, given or not, and, if these
/// are not enough, the fewest of what changes results, in this order: bfloat16 moments, 8-bit moments, shorter packs,
/// adapters instead of the whole model, their base in 8 bits, in 4 bits.
MemoryAdvice advise_on_memory(const Config& config, const FitSubject& subject, const MemoryRoom& room);

/// The advice as the end of an error message.
std::string text_of(const MemoryAdvice& advice);

}  // namespace colonnade
