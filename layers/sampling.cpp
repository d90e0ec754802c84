#include "layers/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/device/philox.h"
#include "layers/cuda_kernels.h"
#include "layers/shape_check.h"

namespace colonnade {
namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();

/// A token that may be drawn.
struct Candidate {
    float logit;
    int32_t token;
    uint64_t weight;
};

bool has_occurred(std::span<const int32_t> seen, size_t token) {
    return !seen.empty() && (static_cast<uint32_t>(seen[token / 32]) >> (token % 32) & 1u);
}

float penalised(float logit, float penalty) {
    return logit > 0 ? logit / penalty : logit * penalty;
}

uint64_t weight_of(float logit, float largest, float temperature) {
    const double x = (static_cast<double>(logit) - largest) / temperature;
    return static_cast<uint64_t>(std::exp(x) * 0x1p40 + 0.5);
}

uint64_t total(std::span<const Candidate> some) {
    uint64_t sum = 0;
    for (const Candidate& c : some) sum += c.weight;
    return sum;
}

/// The smallest logit that is kept: of the candidates with the largest logits, as few as weigh `enough` together.
float nucleus_end(std::vector<Candidate> some, uint64_t enough) {
    size_t begin = 0, end = some.size();
    while (end - begin > 1) {
        const float pivot = some[begin + (end - begin) / 2].logit;
        const auto first = some.begin() + static_cast<ptrdiff_t>(begin),
                   last = some.begin() + static_cast<ptrdiff_t>(end);
        const auto equal = std::partition(first, last, [&](const Candidate& c) { return c.logit > pivot; });
        const auto smaller = std::partition(equal, last, [&](const Candidate& c) { return c.logit == pivot; });
        const uint64_t above = total({first, equal}), same = total({equal, smaller});
        if (above >= enough) {
            end = static_cast<size_t>(equal - some.begin());
        } else if (above + same >= enough || smaller == last) {
            return pivot;
        } else {
            enough -= above + same;
            begin = static_cast<size_t>(smaller - some.begin());
        }
    }
    return some[begin].logit;
}

float top_k_end(std::span<const float> logits, int32_t top_k) {
    if (top_k <= 0 || static_cast<size_t>(top_k) >= logits.size()) return lowest;
    std::vector<float> sorted(logits.begin(), logits.end());
    std::nth_element(sorted.begin(), sorted.begin() + top_k - 1, sorted.end(), std::greater<>());
    return sorted[static_cast<size_t>(top_k) - 1];
}

int32_t draw(std::span<const float> logits, float largest, const Sampling& s, uint64_t drawn) {
    const float kept_from = top_k_end(logits, s.top_k);
    std::vector<Candidate> some;
    for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] < kept_from) continue;
        const uint64_t weight = weight_of(logits[i], largest, s.temperature);
        if (weight > 0) some.push_back({logits[i], static_cast<int32_t>(i), weight});
    }
    float end = lowest;
    if (s.top_p < 1)
        end = nucleus_end(
            some, std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(s.top_p * static_cast<double>(total(some))))));
    const auto least = static_cast<uint64_t>(std::ceil(s.min_p * 0x1p40));  // the largest weighs 2^40
    std::erase_if(some, [&](const Candidate& c) { return c.logit < end || c.weight < least; });
    __extension__ using wide = unsigned __int128;
    const uint64_t bits = Philox{s.seed, s.stream}.bits(drawn);
    auto left = static_cast<uint64_t>(static_cast<wide>(bits) * total(some) >> 64);
    for (const Candidate& c : some) {
        if (left < c.weight) return c.token;
        left -= c.weight;
    }
    return some.back().token;  // not reached: `left` is below the total
}

}  // namespace

SamplingRows SamplingRows::lay_out(Arena& arena, int64_t rows, int64_t vocab) {
    const auto numbers = [&] { return arena.tensor("decode", DType::i32, {rows}); };
    return {.tokens = numbers(),
            .chosen = numbers(),
            .positions = numbers(),
            .slots = numbers(),
            .drawn = numbers(),
            .settings = arena.tensor("decode", DType::u8, {rows * static_cast<int64_t>(sizeof(Sampling))}),
            .seen = arena.tensor("decode", DType::i32, {rows, (vocab + 31) / 32})};
}

SamplingRows SamplingRows::first(int64_t rows) const {
    const auto part = [&](const Tensor& t) { return t.slice(0, 0, rows); };
    return {.tokens = part(tokens),
            .chosen = part(chosen),
            .positions = part(positions),
            .slots = part(slots),
            .drawn = part(drawn),
            .settings = settings.slice(0, 0, rows * static_cast<int64_t>(sizeof(Sampling))),
            .seen = seen};
}

int32_t choose_token(std::span<const float> logits, const Sampling& s, uint64_t drawn, std::span<const int32_t> seen) {
    std::vector<float> changed;
    if (s.repetition_penalty != 1 && !seen.empty()) {
        changed.assign(logits.begin(), logits.end());
        for (size_t i = 0; i < changed.size(); ++i)
            if (has_occurred(seen, i)) changed[i] = penalised(changed[i], s.repetition_penalty);
        logits = changed;
    }
    const auto best = std::max_element(logits.begin(), logits.end());
    const bool has_nan = std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); });
    if (has_nan || std::isinf(*best)) return -1;
    if (s.temperature <= 0) return static_cast<int32_t>(best - logits.begin());
    return draw(logits, *best, s, drawn);
}

void sample_tokens(const Context& ctx, const SampleTokens& args) {
    const SamplingRows& r = args.rows;
    const ShapeCheck check(ctx, "sample_tokens", ctx.device == Device::cuda ? DType::bf16 : DType::f32);
    const int64_t rows = args.logits.size(0), vocab = args.logits.size(1), words = (vocab + 31) / 32;
    check("logits", args.logits, DType::f32, {rows, vocab});
    for (const Tensor* t : {&r.tokens, &r.chosen, &r.positions, &r.slots, &r.drawn})
        check("rows", *t, DType::i32, {rows});
    check("settings", r.settings, DType::u8, {rows * static_cast<int64_t>(sizeof(Sampling))});
    check("seen", r.seen, DType::i32, {r.seen.size(0), words});
    const PhaseTimer timer(ctx, "sampling");
    if (ctx.device == Device::cuda) return cuda::sample_tokens(ctx, args);
#pragma omp parallel for schedule(static) if (rows > 1)
    for (int64_t i = 0; i < rows; ++i) {
        const auto& settings = static_cast<const Sampling*>(r.settings.data)[i];
        int32_t* const seen = r.seen.as<int32_t>() + r.slots.as<int32_t>()[i] * words;
        int32_t& drawn = r.drawn.as<int32_t>()[i];
        const int32_t token =
            choose_token({args.logits.as<float>() + i * args.logits.stride[0], static_cast<size_t>(vocab)}, settings,
                         static_cast<uint64_t>(drawn), {seen, static_cast<size_t>(words)});
        r.chosen.as<int32_t>()[i] = token;
        r.tokens.as<int32_t>()[i] = std::max(token, 0);
        ++drawn;
        ++r.positions.as<int32_t>()[i];
        if (token >= 0)
            seen[token / 32] = static_cast<int32_t>(static_cast<uint32_t>(seen[token / 32]) | 1u << (token % 32));
    }
}

}  // namespace colonnade
