#include "train/model/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/device/philox.h"
#include "layers/linear.h"

namespace colonnade {
namespace {

constexpr int64_t prefill = 512;  // tokens of a prompt that are read at a time

struct Piece {
    Activations acts;
    Tensor logits;
    static Piece lay_out(Arena& arena, const ModelConfig& config, int64_t tokens) {
        Piece p;
        p.acts = Activations::lay_out(arena, config, {.length = tokens});
        p.logits = arena.tensor("logits", DType::f32, {tokens, config.vocab_size});
        return p;
    }
};

size_t arena_bytes(const ModelConfig& config, int64_t max_length) {
    Arena plan(Device::cpu);
    KvCache::lay_out(plan, config, max_length, DType::f32);
    Piece::lay_out(plan, config, std::min(prefill, max_length));
    return plan.bytes();
}

}  // namespace

Generator::Generator(const ModelConfig& config, const ModelParameters& weights, int64_t max_length)
    : config_(config),
      model_(config, weights),
      max_length_(max_length),
      arena_(Device::cpu, arena_bytes(config, max_length)),
      cache_(KvCache::lay_out(arena_, config, max_length, DType::f32)),
      cache_end_(arena_.mark()) {}

Tensor Generator::feed(const Context& ctx, std::span<const int32_t> tokens) {
    const auto count = static_cast<int64_t>(tokens.size());
    require(count > 0 && count <= prefill && cache_.length + count <= max_length_,
            "{} tokens do not fit after {} of {}", count, cache_.length, max_length_);
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(cache_.length));
    const auto view = [&](const int32_t* ids) { return Tensor(const_cast<int32_t*>(ids), DType::i32, {count}); };
    arena_.release(cache_end_);
    Piece piece = Piece::lay_out(arena_, config_, count);
    TransformerInput input{.packs = 1,
                           .length = count,
                           .tokens = view(tokens.data()),
                           .positions = view(positions.data()),
                           .masks = AttentionMasks::lay_out(arena_, config_, 1, count)};
    input.masks.fill(ctx, causal_mask(count, cache_.length + count));
    model_.forward(ctx, input, piece.acts, &cache_);
    cache_.length += count;
    linear_forward(ctx, {.out = piece.logits, .in = piece.acts.hidden, .weight = model_.weights().head});
    return piece.logits;
}

int32_t choose_token(std::span<const float> logits, const GenerateOptions& options, uint64_t index) {
    const auto is_nan = [](float x) { return std::isnan(x); };
    if (std::any_of(logits.begin(), logits.end(), is_nan))
        fail(Exit::numerics, "token {}: the logits contain NaN: the weights of the model are bad", index);
    const auto best = std::max_element(logits.begin(), logits.end());
    if (options.temperature <= 0) return static_cast<int32_t>(best - logits.begin());
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
        return x != y ? x > y : a < b;
    });
    std::vector<double> cumulative(order.size());
    double sum = 0;
    for (size_t i = 0; i < order.size(); ++i)
        cumulative[i] = sum +=
            std::exp((static_cast<double>(logits[static_cast<size_t>(order[i])]) - *best) / options.temperature);
    // The nucleus ends with the first token that reaches top_p; at least one token is in it.
    const auto nucleus = std::lower_bound(cumulative.begin(), cumulative.end(), options.top_p * sum);
    const double mass = nucleus == cumulative.end() ? sum : *nucleus;
    const double draw = Philox{options.seed, 0}.uniform(index) * mass;
    const auto chosen = std::upper_bound(cumulative.begin(), cumulative.end(), draw);
    return order[std::min(static_cast<size_t>(chosen - cumulative.begin()), order.size() - 1)];
}

void Generator::read(const Context& ctx, std::span<const int32_t> prompt,
                     const std::function<void(const Tensor&)>& on_logits) {
    const auto length = static_cast<int64_t>(prompt.size());
    if (length == 0) fail(Exit::data, "the prompt is empty");
    if (length > max_length_)
        fail(Exit::data, "the prompt has {} tokens, but prompt and answer together may have {}", length, max_length_);
    reset();
    for (int64_t at = 0; at < length; at += prefill)
        on_logits(
            feed(ctx, prompt.subspan(static_cast<size_t>(at), static_cast<size_t>(std::min(prefill, length - at)))));
}

std::vector<float> Generator::prompt_logits(const Context& ctx, std::span<const int32_t> prompt) {
    std::vector<float> all;
    read(ctx, prompt,
         [&](const Tensor& piece) { all.insert(all.end(), piece.as<float>(), piece.as<float>() + piece.numel()); });
    return all;
}

std::vector<int32_t> Generator::generate(const Context& ctx, std::span<const int32_t> prompt,
                                         const GenerateOptions& options) {
    const auto length = static_cast<int64_t>(prompt.size());
    if (length == max_length_)
        fail(Exit::data, "the prompt has {} tokens, but prompt and answer together may have {}", length, max_length_);
    Tensor logits;
    read(ctx, prompt, [&](const Tensor& piece) { logits = piece; });

    std::vector<int32_t> answer;
    const int64_t room = std::min(options.max_new_tokens, max_length_ - length);
    while (static_cast<int64_t>(answer.size()) < room) {
        const auto vocab = static_cast<size_t>(logits.size(1));
        const float* last = logits.as<float>() + static_cast<size_t>(logits.size(0) - 1) * vocab;
        const int32_t token = choose_token({last, vocab}, options, answer.size());
        if (std::find(options.stop_ids.begin(), options.stop_ids.end(), token) != options.stop_ids.end()) break;
        answer.push_back(token);
        if (static_cast<int64_t>(answer.size()) < room) logits = feed(ctx, std::span(&answer.back(), 1));
    }
    return answer;
}

}  // namespace colonnade
