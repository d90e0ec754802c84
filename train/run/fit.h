#pragma once
// What a run can set so that it fits into memory, without a change of its results but for rounding. Each MemoryOption
// makes a config need less, in steps; fit_memory() looks through all combinations of them and takes the one whose step is
// predicted to be fastest (train/run/step_time.h) among those that fit. memory_advice.h adds what changes results.

#include <set>
#include <string>
#include <vector>

#include "train/config/config.h"
#include "train/run/step_time.h"

namespace colonnade {

/// A run, apart from its config.
struct FitSubject {
    const ModelConfig& model;
    Device device;
    int ranks = 1, local_ranks = 1;  ///< in all, and on this machine
    BatchDensity density{};
    StepAmounts of_pack{};  ///< what an average pack has
    GpuRates rates{};       ///< for which time is predicted
    size_t beside = 0;      ///< bytes on the device beside the learner's
    bool can_adapt = true;  ///< adapters instead of the whole model are possible
    bool can_split = true;  ///< a micro-step's packs may be divided: no random numbers depend on their places

    LearnerOptions options(const Config& config) const;
    StepTime time(const Config& config) const;
};

/// Bytes that a plan may have, on the device and, for each rank, in host memory.
struct MemoryRoom {
    size_t device = 0, host = 0;
};
struct MemoryNeed {
    size_t device = 0, host = 0;
    bool within(const MemoryRoom& room) const { return device <= room.device && host <= room.host; }
};
MemoryNeed memory_need(const FitSubject& subject, const Config& config);

/// One way to need less memory.
struct MemoryOption {
    /// What it sets. It changes nothing if the first one is given; the others keep their values if they are given.
    std::vector<const char*> keys;
    /// Configs with less memory than the one at hand, and more time, step by step; none if it has the least already.
    std::vector<Config> (*steps)(const Config& config, const FitSubject& subject);
    /// Takes what it sets from another config of the run.
    void (*copy)(Config& to, const Config& from);
};
/// The last one has many steps, of which the first that fits is taken. A step may not need more of the device than the one
/// before it; of models of a few million parameters some do, so that a combination that fits may be missed.
const std::vector<MemoryOption>& memory_options();

struct FittedConfig {
    Config config;
    MemoryNeed need;
    double seconds = 0;  ///< of a step, predicted for subject.rates
    bool fits = false;   ///< false: every option as far as it goes within the host's memory
};
/// The config itself if it fits; otherwise the fastest one that does, of equal ones that with the least host memory.
FittedConfig fit_memory(const Config& config, const std::set<std::string>& given, const FitSubject& subject,
                        const MemoryRoom& room);

/// "gradient_checkpointing=block": what differs of memory_options()' keys, in the order of the table of keys.
std::vector<std::string> fitted_settings(const Config& before, const Config& after);

}  // namespace colonnade
