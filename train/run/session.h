#pragma once
// Session: everything that a run needs before its first step: device, tokenizer, model shape, tokenised samples of both
// splits. `prepare`, `train` and `train --plan` all begin by opening one.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/samples/encode.h"
#include "data/store/build_store.h"
#include "engine/device/version.h"
#include "engine/ranks/ranks.h"
#include "train/config/config.h"
#include "train/run/find_fit.h"
#include "train/run/machine.h"
#include "train/run/run_model.h"
#include "train/step/learner.h"

namespace colonnade {

struct Session {
    Config config{};
    std::set<std::string> given{};  ///< LoadedConfig::given
    Device device = Device::cpu;
    ModelConfig model{};
    RunText text{};
    std::shared_ptr<const Encoder> encoder{};  ///< without a tokenizer if all rows are pre-tokenised
    StoreResult train{}, eval{};               ///< eval is empty if there is no evaluation data
    std::optional<FoundFit> fit{};             ///< with fit: auto
    std::string data_key{};                    ///< of both splits: part of a checkpoint's identity
    std::vector<std::string> notices{};        ///< one line each, for the user
    std::string program = COLONNADE_VERSION;   ///< what --version says first, for run.json
};

/// Names of a hub become paths of this machine (train/run/local_names.h).
/// Throws Exit::config if the machine cannot do what the config asks for, Exit::data for errors in model, tokenizer and
/// data files. With fit: auto the config has the settings that fit. With several ranks, rank 0 tokenises and the others read the result.
Session open_session(const LoadedConfig& loaded, const Ranks& ranks = one_rank(), SessionUse use = SessionUse::run);

}  // namespace colonnade
