#pragma once
// What `export` reads: a checkpoint of a run, or, for a GGUF file, any model.

#include <memory>
#include <string>
#include <vector>

#include "data/samples/encode.h"
#include "train/folders/checkpoint.h"
#include "train/folders/export_gguf.h"
#include "train/run/run_model.h"

namespace colonnade {

/// A checkpoint, opened on the CPU.
struct CheckpointSource {
    /// `checkpoint`: its folder, or a run folder without a model. `base`: replaces the base of a run with LoRA or frozen
    /// layers; empty: the one in its config. `adapter`: adapters are wanted. Throws Exit::config if the run has none, and
    /// for a base of any other run.
    CheckpointSource(std::string checkpoint, const std::string& base, bool adapter);

    std::string folder;  ///< of the checkpoint
    Config config;       ///< with paths for names
    std::optional<LoraSettings> lora;
    std::optional<FreezeSettings> freeze;
    std::unique_ptr<Learner> learner;
    RunText text;
    std::shared_ptr<const Encoder> encoder;
    int64_t step = 0;
    std::vector<std::string> notices;
};

struct GgufOptions {
    std::string source{};  ///< a checkpoint, or a model as LoadedModel takes it: folder, file, adapters, name on a hub
    std::string base{};    ///< of adapters, or of a run with LoRA or frozen layers
    std::string path{};    ///< of the new file
    const GgufType* type = nullptr;  ///< null: that of the source's weights
    bool adapter = false;            ///< the adapters alone
};
struct GgufResult {
    std::string what{};  ///< "step 20, 1234 parameters as BF16"
    std::vector<std::string> notices{};
};
/// Writes a GGUF file. Adapters are merged into their base unless GgufOptions::adapter is set. Throws Exit::config for
/// --adapter without adapters and for a base that is not found.
GgufResult export_to_gguf(const GgufOptions& options);

}  // namespace colonnade
