#pragma once
// DeviceBatch: a Batch (data/packing/batch.h) on the device that runs the model. The host checks the batch once, in
// fill(), so that kernels need not. On a GPU the tensors are copies in the arena; on the CPU some are views of the
// host's vectors.

#include "data/packing/batch.h"
#include "layers/preference_loss.h"
#include "train/model/transformer.h"

namespace colonnade {

/// What an objective reads about the answers of a batch.
enum class Answers { none, pairs, rankings, labels, policy, teacher };

/// Upper bounds for what a batch has per token. Sequences that share their learned tokens, and rankings of many short
/// answers, have more than one.
struct BatchDensity {
    double terms = 1, sequences = 1, pairs = 1;
    int64_t teacher = 0;  ///< entries of a teacher's list, at most
};

/// How large a batch is.
struct BatchShape {
    int64_t packs = 0, length = 0, targets = 0, terms = 0, sequences = 0, samples = 0, pairs = 0;
    int64_t teacher = 0;  ///< entries of the longest list of a teacher
    int64_t tokens() const { return packs * length; }
    /// Rows that the head reads: that of each target, or of each answer of a ranking.
    int64_t head_rows(Answers answers) const { return answers == Answers::rankings ? sequences : targets; }
    static BatchShape of(const Batch& batch);
    /// An upper bound for every batch of this many tokens.
    static BatchShape largest(int64_t packs, int64_t length, const BatchDensity& density);
};

/// Whether a batch brings the log-probabilities under a reference that such answers are compared with.
bool has_reference(const Batch& batch, Answers answers);
/// Gives a batch what Learner::measure() returned as its reference.
void set_reference(Batch& batch, Answers answers, const std::vector<double>& measured);

struct DeviceBatch {
    TransformerInput input;  ///< rows: that of each target; for rankings that of the last token of each sequence

    // Targets, in the order of Batch::targets.
    Tensor targets;  ///< i32 [targets]
    Tensor weights;  ///< f64 [targets]
    Tensor scales;   ///< f64 [targets]: the weight divided by the total of the whole step

    // Answers for pairs, labels and a policy:
    TermTable terms;
    Tensor lengths;    ///< f64 [sequences]: sum of the weights of a sequence's terms
    Tensor reference;  ///< log-probabilities under the reference: f64 [sequences]; for a policy f32 [terms]
    // Answers for a teacher:
    Tensor teacher_ids;        ///< i32 [targets, teacher]: the list of each target, then -1
    Tensor teacher_log_probs;  ///< f32 [targets, teacher]
    // Answers for pairs:
    PairTable pairs;
    // Answers for labels:
    Tensor labels;  ///< i32 [sequences]: AnswerLabel; -1 for mismatched answers
    // Answers for a policy; of what the data set does not give, a tensor is empty:
    Tensor advantages;    ///< f32 [terms]
    Tensor old, sampled;  ///< f32 [terms]
    Tensor rewards;       ///< f32 [sequences]
    // Answers for rankings. Scores are in the order of their rows, which TransformerInput needs:
    Tensor places;                      ///< i32 [sequences]: which of them is a sequence's
    Tensor sample_begins, pair_begins;  ///< i32 [samples + 1]: the sequences and pairs of each sample
    Tensor margins;                     ///< f32 [pairs]
    std::vector<int32_t> score_order;   ///< `places`, on the host

    static DeviceBatch lay_out(Arena& arena, const ModelConfig& config, const BatchShape& shape, Answers answers);
    /// Fills what was laid out. `total`: what the loss of the whole step is divided by. On the CPU tokens, positions,
    /// rows, targets, weights and terms become views of `batch`, which must outlive the pass. Throws Exit::data for a
    /// token or target outside the vocabulary, a sample without a pair, a pair with an answer that has no term, a
    /// ranking with an answer of no token, and a labelled sample of several sequences or without a term.
    void fill(const Context& ctx, const ModelConfig& config, const Batch& batch, double total);

  private:
    void fill_targets(const Context& ctx, const Batch& batch, double total);
    void fill_terms(const Context& ctx, const Batch& batch);
    void fill_pairs(const Context& ctx, const Batch& batch) const;
    void fill_policy(const Context& ctx, const Batch& batch);
    void fill_rankings(const Context& ctx, const Batch& batch);
    void fill_labels(const Context& ctx, const Batch& batch) const;
    void fill_teacher(const Context& ctx, const ModelConfig& config, const Batch& batch) const;

    Answers answers_ = Answers::none;
};

}  // namespace colonnade
