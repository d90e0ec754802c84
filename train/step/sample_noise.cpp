#include "train/step/sample_noise.h"

#include <cmath>

#include "engine/device/device_memory.h"

namespace colonnade {
namespace {

/// FNV-1a over the words of the update and the tokens.
uint64_t stream_of(int64_t update, std::span<const int32_t> tokens) {
    uint64_t hash = 0xcbf29ce484222325u;
    const auto add = [&](uint64_t word) { hash = (hash ^ word) * 0x100000001b3u; };
    add(static_cast<uint64_t>(update));
    for (const int32_t token : tokens) add(static_cast<uint32_t>(token));
    return hash;
}

}  // namespace

SampleNoise SampleNoise::lay_out(Arena& arena, int64_t tokens) {
    return {.scales = arena.tensor("batch", DType::f32, {tokens}),
            .streams = arena.tensor("batch", DType::i64, {tokens})};
}

void SampleNoise::fill(const Context& ctx, const Batch& batch, const Settings& s) const {
    const size_t tokens = batch.tokens.size(), row = static_cast<size_t>(batch.length);
    std::vector<float> scale(tokens);
    std::vector<int64_t> stream(tokens);
    for (size_t begin = 0, end; begin < tokens; begin = end) {
        end = begin + 1;  // a sample begins at position 0, as does every token of padding
        while (end < tokens && end % row != 0 && batch.positions[end] != 0) ++end;
        const std::span<const int32_t> sample(batch.tokens.data() + begin, end - begin);
        const auto size = static_cast<double>(sample.size()) * static_cast<double>(s.hidden);
        std::fill(scale.begin() + static_cast<std::ptrdiff_t>(begin), scale.begin() + static_cast<std::ptrdiff_t>(end),
                  static_cast<float>(s.alpha / std::sqrt(size)));
        std::fill(stream.begin() + static_cast<std::ptrdiff_t>(begin),
                  stream.begin() + static_cast<std::ptrdiff_t>(end), static_cast<int64_t>(stream_of(s.update, sample)));
    }
    put(ctx, scales, scale);
    put(ctx, streams, stream);
}

}  // namespace colonnade
