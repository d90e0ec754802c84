#pragma once
// Rows of token ids of an answer that a model wrote, with what the sampler knew of each token.
//
//   prompt_tokens  {"prompt_ids", "completion_ids", masks?}: a mask has an entry for each token of the completion
//   tokens         {"input_ids", "completion_mask" or another mask}: an entry for each token, and the completion begins
//                  with the first that is learned; or {"input_ids", "response_length", masks?}: the last tokens are the
//                  completion, and masks are of these
//
// A token is learned if all masks have a 1 there: completion_mask, loss_mask, response_mask, tool_mask. The prompt's
// padding, by prompt_mask, is cut off.
//
// Log-probabilities: old_per_token_logps or old_log_probs, of the policy that the update starts from;
// sampling_per_token_logps or rollout_log_probs, of the sampler; ref_per_token_logps or ref_log_prob, of the reference.
// A list has an entry for each token of the completion, or for each learned token, or for each token of the row; null or
// NaN is unknown. Up to 1e-3 above 0 is rounding, and becomes 0.

#include "data/rows/score_keys.h"

namespace colonnade {

/// The optional keys of the two formats, without those of rewards.
std::vector<std::string> prompt_token_keys();
std::vector<std::string> scored_token_keys();
/// All names of log-probabilities.
KeyNames logp_names();

/// By which a log-probability, or a sum of probabilities, may be too large.
inline constexpr double logp_rounding = 1e-3;

/// The tokens of a row.
struct TokenAnswer {
    std::vector<int32_t> prompt{}, completion{};
    std::vector<bool> learned{};   ///< of the completion, as the masks say
    size_t before = 0, after = 0;  ///< padding around them in the row

    /// A first token is predicted by nothing.
    bool is_learned(size_t i) const { return learned[i] && (i > 0 || !prompt.empty()); }
};
/// The entries of a list that belong to learned tokens. Throws Exit::data for a list of another length.
std::vector<const Json*> of_learned(const RowFields& row, const char* key, const TokenAnswer& answer);

enum class ScoredBy { reward, label, teacher };
Row read_prompt_tokens(const RowFields& row, ScoredBy by);
Row read_scored_tokens(const RowFields& row);

}  // namespace colonnade
