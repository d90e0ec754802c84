#pragma once
// The names of policy losses in golden values.

#include <map>
#include <string>

#include "layers/policy_formulas.h"

namespace colonnade {

inline const std::map<std::string, PolicyLoss> losses = {{"dapo", PolicyLoss::dapo},       {"grpo", PolicyLoss::grpo},
                                                         {"dr_grpo", PolicyLoss::dr_grpo}, {"luspo", PolicyLoss::luspo},
                                                         {"cispo", PolicyLoss::cispo},     {"sapo", PolicyLoss::sapo},
                                                         {"rloo", PolicyLoss::rloo}};
inline const std::map<std::string, RatioLevel> levels = {
    {"token", RatioLevel::token}, {"sequence", RatioLevel::sequence}, {"sequence_sum", RatioLevel::sequence_sum}};

}  // namespace colonnade
