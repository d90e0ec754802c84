#pragma once
// Text generation with a key/value cache: greedy, or sampling by temperature and top-p (nucleus, arXiv 1904.09751).

#include <span>
#include <vector>

#include "train/model/transformer.h"

namespace colonnade {

struct GenerateOptions {
    int64_t max_new_tokens = 256;
    double temperature = 0;  ///< 0: greedy
    double top_p = 1;        ///< draw from the smallest set of most likely tokens that has this probability
    uint64_t seed = 42;
    std::vector<int32_t> stop_ids{};  ///< generation stops at one of these and does not return it
};

/// Generates one sequence at a time, on the CPU, in its own arena. The cache holds max_length tokens: prompt and
/// answer together.
class Generator {
  public:
    Generator(const ModelConfig& config, const ModelParameters& weights, int64_t max_length);

    /// Returns new tokens after `prompt`. Throws Exit::data if the prompt is empty or does not fit.
    std::vector<int32_t> generate(const Context& ctx, std::span<const int32_t> prompt, const GenerateOptions& options);

    /// Returns the logits of every token of `prompt`, [tokens * vocab]. Throws as generate() does.
    std::vector<float> prompt_logits(const Context& ctx, std::span<const int32_t> prompt);

    /// Appends `tokens` (at most 512) to the cache and returns their logits [tokens, vocab], valid until the next call.
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

/// Chooses the next token from logits [vocab]. `index` is the number of tokens drawn so far: a seed determines the
/// whole text. Throws Exit::numerics if a logit is NaN.
int32_t choose_token(std::span<const float> logits, const GenerateOptions& options, uint64_t index);

}  // namespace colonnade
