#pragma once
// Text generation with a key/value cache: greedy, or sampling by temperature and top-p (nucleus, arXiv 1904.09751).

#include <span>
#include <vector>

#include "train/model/transformer.h"

namespace colonnade {

struct GenerateOptions {
    int64_t max_new_tokens = 256;
    double temperature = 0;  ///< 0: greedy
    double top_p = 1;        ///< smallest set of most likely tokens with this much probability
    uint64_t seed = 42;
    std::vector<int32_t> stop_ids{};  ///< generation ends with (and does not return) one of these
};

/// One sequence at a time over a model and its own arena. The cache holds max_length tokens: prompt and answer
/// together.
class Generator {
  public:
    Generator(const ModelConfig& config, const ModelParameters& weights, int64_t max_length);

    /// New tokens after `prompt`. Throws Exit::data where the prompt is empty or does not fit.
    std::vector<int32_t> generate(const Context& ctx, std::span<const int32_t> prompt, const GenerateOptions& options);

    /// The logits of every token of `prompt`, [tokens * vocab]. Throws as generate() does.
    std::vector<float> prompt_logits(const Context& ctx, std::span<const int32_t> prompt);

    /// Feeds `tokens` (at most 512) after what the cache holds and returns the logits of all of them ([tokens, vocab],
    /// valid until the next call).
    Tensor feed(const Context& ctx, std::span<const int32_t> tokens);
    void reset() { cache_.length = 0; }

  private:
    /// Empties the cache and feeds `prompt` piece by piece.
    void read(const Context& ctx, std::span<const int32_t> prompt, const std::function<void(const Tensor&)>& on_logits);

    const ModelConfig& config_;
    Transformer model_;
    int64_t max_length_;
    Arena arena_;
    KvCache cache_;
    size_t cache_end_;
};

/// The next token from logits [vocab]; `index` counts the tokens drawn so far, so that a seed gives one text.
/// Throws Exit::numerics for logits that are not numbers.
int32_t choose_token(std::span<const float> logits, const GenerateOptions& options, uint64_t index);

}  // namespace colonnade
