#pragma once
// Reward model (stage rm): a score head on the last token of every answer (layers/score_head.h), trained on answers
// that are ranked best first (layers/ranking_loss.h).
//
//     loss = sum over samples of the loss of their ranking / sum of the samples' weights, of the whole step

#include "layers/ranking_loss.h"
#include "train/objectives/objective.h"

namespace colonnade {

/// plackett_luce learns from a whole ranking: throws Exit::data if a sample's pairs have margins, or are not those of
/// all of its answers, best first.
void require_ranking(std::span<const AnswerPair> pairs, int64_t answers);

class RewardObjective : public Objective {
  public:
    RewardObjective(RankingKind kind, double center) : kind_(kind), center_(center) {}

    Answers answers() const override { return Answers::rankings; }
    double total(const StepTotals& totals) const override { return totals.ranking_weight; }
    double total(const Batch& batch) const override { return batch.ranking_weight; }
    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    /// With plackett_luce: require_ranking() of each sample.
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
