#pragma once
// Reward model (stage rm): a score head on the last token of every answer (layers/score_head.h), learned from answers
// ranked best first (layers/ranking_loss.h).
//
//     loss = sum over samples of the ranking's loss / samples of the whole global step

#include "layers/ranking_loss.h"
#include "train/objectives/objective.h"

namespace colonnade {

class RewardObjective : public Objective {
  public:
    RewardObjective(RankingKind kind, double center) : kind_(kind), center_(center) {}

    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    /// Throws Exit::data where plackett_luce meets a margin.
    void fill(const Context& ctx, const ObjectiveBuffers& buffers, const Batch& batch) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    void measure(const Context& ctx, const ObjectiveStep& step) const override;
    std::vector<Metric> metrics(const LossSums& sums, bool evaluation) const override;
    std::string figures(const LossSums& sums, bool evaluation) const override;

  private:
    RankingKind kind_;
    double center_;
};

}  // namespace colonnade
