#pragma once
// The checks of `colonnade selftest`: what Colonnade promises, measured on the user's machine, and on the user's model and
// data. docs/selftest.md describes them.

#include "train/run/session.h"
#include "train/selftest/check.h"

namespace colonnade {

/// On small models with random weights and on random data, which need no file. `gpu`: null for the CPU.
std::vector<Check> built_in_checks(Gpu* gpu);

/// On the model and some samples of a run, which must outlive the checks. `tokens`: about how many tokens of its data each
/// check computes.
std::vector<Check> run_checks_of(const Session& session, Gpu* gpu, int64_t tokens);

}  // namespace colonnade
