#pragma once
// MismatchedAnswers: for every sample of a store the answer of another sample, whose prompt differs. Stage kto measures
// on them how far the policy has moved from the reference altogether (z in layers/unpaired_formulas.h).
//
// The prompt of a sample is what comes before its first learned token, its answer is the rest. The samples stand in a
// circle, in an order that the seed draws, and each takes the answer of the next one that has another prompt. The pairs
// depend on the tokens and the seed alone: they are the same in every epoch, for any packs, micro-steps and ranks.
//
// Memory: 12 bytes a sample. The tokens are those of the store.

#include "data/store/store.h"

namespace colonnade {

class MismatchedAnswers {
  public:
    struct Settings {
        uint64_t seed = 0;
        int64_t max_length = 0;  ///< tokens of a prompt with an answer, which is cut at its end
    };

    /// For no sample.
    MismatchedAnswers() = default;
    /// The samples of `store` have one sequence each, of at most max_length tokens, some of them learned. It is empty if
    /// all of them have the same prompt.
    MismatchedAnswers(const TokenStore& store, const Settings& settings);

    bool empty() const { return partners_.empty(); }
    /// The prompt of sample i with the answer of another one. Its advantage is 0: it is neither desirable nor not.
    /// `store` has the samples that the constructor saw.
    Sample sample(const TokenStore& store, int64_t i) const;
    /// Number of the sample whose answer the prompt of sample i gets.
    int64_t partner(int64_t i) const { return partners_[static_cast<size_t>(i)]; }

    /// Tokens of each sample().
    std::vector<int64_t> lengths(const TokenStore& store) const;
    /// For the packer: the longer one of each sample and its mismatched one, so that a row holds either.
    std::vector<int64_t> row_lengths(const TokenStore& store) const;
    /// Leaves in lcp what mismatched samples also have in common: prompts, no answers.
    void limit(PrefixOrder& order) const;

  private:
    int64_t max_length_ = 0;
    std::vector<int64_t> partners_;
    std::vector<int32_t> prompts_;  ///< their lengths
};

}  // namespace colonnade
