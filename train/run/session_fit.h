#pragma once
// Fitting a session's run into memory (key fit): what there is, and what the run chooses for it.

#include "train/run/fit.h"
#include "train/run/session.h"

namespace colonnade {

/// What the memory keys and this machine leave for the plan of this rank. For a run it is no more than what is free now; for
/// a plan a key stands for the machine. Nothing if neither says what a GPU has.
std::optional<MemoryRoom> memory_room(const Config& config, Device device, const Ranks& ranks, SessionUse use);

/// The average of one token of samples with these lengths, `learned` of whose tokens are targets. A sample of several
/// sequences counts as one.
StepAmounts amounts_of_token(const Config& config, const ModelConfig& model, std::span<const int64_t> lengths,
                             int64_t learned);
StepAmounts amounts_of_token(const Session& session);

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

/// `session` must outlive the result.
FitSubject fit_subject(const Session& session, const Ranks& ranks);

/// With fit: auto, all ranks call it: changes the config so that the run fits. A run that resumes keeps what it ran with before, if that
/// still fits, so that it goes on with the same bits. If nothing fits, the config stays as it is. Sets session.fit.
void fit_session(Session& session, const Ranks& ranks, SessionUse use);

/// What fit has done, and whether the run fits into the memory that the keys allow, in words; empty if there is nothing to
/// say.
std::string fit_text(const Session& session, const Ranks& ranks);

/// Throws Exit::memory, with advice, if the plan is above gpu_memory or host_memory.
void require_memory(const Session& session, const Ranks& ranks);

/// "1.9 s, 0.2 s of it for ...": the prediction for a step of `micro_steps` on a rank; empty if it cannot be made.
std::string step_time_text(const StepTime& time, const PredictedGpu& gpu);

}  // namespace colonnade
