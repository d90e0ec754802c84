#pragma once
// Policy gradients over given answers (stage grpo): the losses of layers/policy_formulas.h. Answers, their advantages and
// the log-probabilities under the policy that drew them come with the data; nothing is sampled here.
//
//     loss = sum over terms of weight * value / N     dapo, cispo: N is the weight of the terms of the whole step
//            ... / (n_s S)                            grpo, sapo, rloo, gspo: n_s terms of sequence s, S sequences
//            ... / (S max_completion_length)          dr_grpo
//            ... / S                                  luspo
//
// N and S count all micro-steps and ranks. A ratio of tokens takes one pass over the head, which makes each gradient in
// the chunk that has the logits; a ratio of sequences takes two, as preferences do.
//
// The ratio of a term without an old log-probability is 1: right for the first update from the policy that drew the
// answers. Evaluation computes the same loss, without gradients.

#include "layers/policy_loss.h"
#include "train/objectives/objective.h"

namespace colonnade {

struct PolicyOptions {
    PolicySettings settings{};
    double max_completion_length = 1;  ///< the constant of dr_grpo
    double temperature = 1;            ///< logits are divided by it, as the sampler did
    /// For answers that have old and sampled log-probabilities; nothing: the sampled ones are not used.
    std::optional<ImportanceSettings> importance = ImportanceSettings{};
};

class PolicyObjective : public Objective {
  public:
    explicit PolicyObjective(const PolicyOptions& options) : options_(options) {}

    Answers answers() const override { return Answers::policy; }
    ObjectiveBuffers lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape,
                             const HeadSettings& settings) const override;
    /// Throws Exit::data for a sample of several sequences, and for a reference that is not known for all terms.
    void check(const Batch& batch) const override;
    /// Answers without a term count in S and in the metrics.
    bool learns_from(const Batch& batch) const override { return batch.samples > 0; }
    void run(const Context& ctx, const ObjectiveStep& step) const override;
    double total(const StepTotals& totals) const override {
        return by_terms() ? totals.weight : static_cast<double>(totals.samples);
    }
    double total(const Batch& batch) const override {
        return by_terms() ? batch.target_weight : static_cast<double>(batch.samples);
    }
    void measure(const Context& ctx, const ObjectiveStep& step) const override;
    bool needs_reference() const override { return options_.settings.beta != 0; }
    std::vector<Metric> metrics(const LossSums& sums, Phase phase) const override;
    std::string figures(const LossSums& sums, Phase phase) const override;
    std::string misfit(const LossSums& first) const override;

  private:
    bool by_terms() const { return is_mean_of_terms(options_.settings.loss); }
    bool one_pass() const { return options_.settings.ratio == RatioLevel::token; }
    PolicyTerms terms_of(const Context& ctx, const ObjectiveStep& step) const;

    PolicyOptions options_;
};

}  // namespace colonnade
