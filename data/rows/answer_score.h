#pragma once
// AnswerScore: what a row of stages grpo, kto and distill says about an answer.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/rows/teacher_lists.h"

namespace colonnade {

/// Log-probabilities that a data set gives for learned tokens, in their order: one for each, or none at all. NaN is one
/// that is not known.
struct GivenLogps {
    std::vector<float> old{};        ///< under the policy that the update starts from
    std::vector<float> sampled{};    ///< as the sampler reported it
    std::vector<float> reference{};  ///< under the reference model

    static constexpr std::vector<float> GivenLogps::*all[] = {&GivenLogps::old, &GivenLogps::sampled,
                                                              &GivenLogps::reference};
    bool operator==(const GivenLogps&) const = default;
};

/// The first 128 bits of a hash of what makes answers a group.
using GroupKey = std::array<uint64_t, 2>;

struct AnswerScore {
    /// What each reward function gave, NaN for one that gave nothing. Empty if the row has no reward.
    std::vector<double> rewards{};
    /// The functions' names; null if the row has none. Answers of a row may share them.
    std::shared_ptr<const std::vector<std::string>> functions{};
    /// As the row gives it, NaN for one that it does not know; nothing: it is computed from the rewards. Stage kto: 1 or
    /// -1.
    std::optional<double> advantage{};
    GroupKey group{};        ///< equal for answers to one prompt
    bool truncated = false;  ///< the sampler stopped before the answer ended
    GivenLogps logps{};
    TeacherLists teacher{};  ///< of its learned tokens
};

}  // namespace colonnade
