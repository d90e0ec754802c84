#pragma once
// What `train` and `train --plan` print before the first step.

#include <string>

#include "data/packing/pack_schedule.h"
#include "train/run/save_plan.h"

namespace colonnade {

enum class PlanLength { brief, complete };  ///< brief: memory as one line

struct PlanView {
    PlanLength length = PlanLength::complete;
    bool colours = false;
    size_t columns = 0;  ///< lines are wrapped to so many; 0: never

    /// For what is printed to stdout: a terminal, or anything else.
    static PlanView of_stdout(PlanLength length);
    /// A text wrapped to the columns; lines go on after `indent` spaces.
    std::string fitting(const std::string& text, size_t indent) const;
};

struct PlannedRun {
    const Session& session;
    PackSchedule& schedule;
    const SavePlan& saves;
    const Ranks& ranks;
};

/// "llama, 2 layers of 64, 4 heads (2 kv) of 16, vocabulary 300: 37.8k parameters".
std::string model_text(const ModelConfig& model);

/// The notes of a session, then the exact numbers of steps, samples, tokens and bytes of a run. Reads every epoch of the
/// schedule; allocates nothing on the device.
std::string plan_text(const PlannedRun& run, const PlanView& view);

}  // namespace colonnade
