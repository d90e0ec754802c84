#pragma once
// Reward model (stage rm): a score head on the last token of every answer (layers/score_head.h), trained on answers
// that are ranked best first (layers/ranking_loss.h).
//
//     loss = sum over samples of the loss of their ranking / samples of the whole step

#include "layers/ranking_loss.h"
#include "train/objectives/objective.h"

namespace colonnade {

class RewardObjective : public Objective {
  public:
    RewardObjective(RankingKind kind, double center) : kind_(kind), center_(center) {}

    Answers answers() const override { return Answers::rankings; }
    double total(const StepTotals& totals) const override { return totals.rankings; }
    double total(const Batch& batch) const override { return static_cast<double>(batch.rankings); }
    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    /// Throws Exit::data for a margin with plackett_luce.
    void check(const Batch& batch) const override;
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    void measure(const Context& ctx, const ObjectiveStep& step) const override;
    std::vector<Metric> metrics(const LossSums& sums, Phase phase) const override;
    std::string figures(const LossSums& sums, Phase phase) const override;

  private:
    RankingKind kind_;
    double center_;
};

}  // namespace colonnade
