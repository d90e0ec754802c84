#pragma once
// The key fit: what memory there is, what a run chooses for it, and what it says about that.

#include <optional>
#include <span>
#include <string>

#include "train/run/fit.h"
#include "train/run/machine.h"

namespace colonnade {

/// What the memory keys and this machine leave for the plan of this rank. For a run it is no more than what is free now; for
/// a plan a key stands for the machine. Nothing if neither says what a GPU has.
std::optional<MemoryRoom> memory_room(const Config& config, Device device, const Ranks& ranks, SessionUse use);

/// The average of one token of samples with these lengths, `learned` of whose tokens are targets. A sample of several
/// sequences counts as one.
StepAmounts amounts_of_token(const Config& config, const ModelConfig& model, std::span<const int64_t> lengths,
                             int64_t learned);

/// The GPU whose rates predictions use.
struct PredictedGpu {
    std::string name;
    GpuRates rates;
    bool assumed = false;  ///< none is here
};
/// The GPU at the config's device_index; an H200 if there is none. Its rates may be unknown.
PredictedGpu predicted_gpu(const Config& config);
/// Those of an H200 if they are unknown, or on the CPU: enough to compare settings.
GpuRates rates_to_compare(const Config& config, Device device);

/// What fit: auto has found.
struct FoundFit {
    std::optional<MemoryRoom> room{};
    std::vector<std::string> settings{};  ///< "gradient_checkpointing=block": what it has changed
    size_t given_bytes = 0;               ///< what the run needs of the device without these settings
    bool resumed = false;                 ///< these are the settings of the run that resumes
    std::string trouble{};                ///< why it has changed nothing, though the run may not fit
};

/// Changes the config so that the run fits; keys in `given` keep their values. If nothing fits, the config stays as it is.
/// `then`: the config that the run to resume had. Its settings stay if they still fit, and with them the bits.
FoundFit find_fit(Config& config, const std::set<std::string>& given, const FitSubject& subject,
                  const std::optional<MemoryRoom>& room, const std::optional<Config>& then = {});

/// What fit has done, or without it (null) whether the config fits; empty if there is nothing to say.
std::string fit_text(const FoundFit* found, const Config& config, const FitSubject& subject,
                     const std::optional<MemoryRoom>& room);

/// Throws Exit::memory, with advice, if the plan is above gpu_memory or host_memory.
void require_memory(const Config& config, const FitSubject& subject, const Ranks& ranks);

/// "1.9 s predicted on this NVIDIA H200, 200 ms of it for optimizer state in host memory".
std::string step_time_text(const StepTime& time, const PredictedGpu& gpu);

}  // namespace colonnade
