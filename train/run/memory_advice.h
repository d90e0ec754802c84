#pragma once
// What a run that does not fit into memory can set so that it does.

#include <string>

#include "train/run/session.h"

namespace colonnade {

struct MemoryAdvice {
    std::vector<std::string> settings{};  ///< as on the command line: "gradient_checkpointing=block"
    size_t bytes = 0;                     ///< what the run then needs
    bool fits = false;                    ///< false: these settings need the least, and still too much
};

/// Changes the config until the plan of its learner has at most `available` bytes, in this order, and then takes back
/// each change that was not needed: recomputed activations, fewer packs in a micro-step and as many more micro-steps,
/// inputs of blocks in host memory if there is room, fewer logits at a time, shards of the optimizer state, this state in
/// host memory if there is room, bfloat16 moments, shorter packs, adapters instead of the whole model. What comes before
/// bfloat16 moments leaves results as they are but for rounding.
MemoryAdvice advise_on_memory(const Session& session, const Ranks& ranks, size_t available);

/// The advice as the end of an error message.
std::string text_of(const MemoryAdvice& advice);

}  // namespace colonnade
