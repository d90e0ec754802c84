#include "train/selftest/random_model.h"

#include <algorithm>
#include <array>

#include "engine/device/float16.h"
#include "engine/device/philox.h"

namespace colonnade {

ModelConfig tiny_config(Architecture architecture, bool tied) {
    ModelConfig c = family_defaults(architecture);
    c.vocab_size = 29;
    c.hidden_size = 12;
    c.intermediate_size = 20;
    c.num_hidden_layers = 2;
    c.num_attention_heads = 4;
    c.num_key_value_heads = 2;
    c.head_dim = architecture == Architecture::qwen3 ? 6 : 4;
    c.tie_word_embeddings = tied;
    c.initializer_range = 0.3;
    c.windows = {0, 0};
    if (architecture == Architecture::mistral) c.windows = {5, 5};
    if (architecture == Architecture::qwen2) c.windows = {0, 4};
    return c;
}

ModelConfig small_config(Architecture architecture, bool tied) {
    ModelConfig c = tiny_config(architecture, tied);
    c.vocab_size = 203;
    c.hidden_size = 128;
    c.intermediate_size = 192;
    c.head_dim = architecture == Architecture::qwen3 ? 128 : 64;
    c.initializer_range = 0.08;
    return c;
}

void randomize(Learner& learner, uint64_t seed) {
    const auto draw = [&](const Parameter& p, uint64_t i) {
        const Philox matrix{seed, p.stream}, vector{seed + 1, static_cast<uint64_t>(p.begin)};
        if (p.decay) return learner.config().initializer_range * matrix.normal(i);
        return (p.init == Init::ones ? 1 : 0) + 0.2 * vector.normal(i);
    };
    learner.fill_weights([&](const Tensor& weights) {
        dispatch_float(weights.dtype, [&]<typename T>() {
            T* w = weights.as<T>();
            for (const Parameter& p : learner.parameters().all())
                for (int64_t i = 0; i < p.size(); ++i) {
                    const auto x = static_cast<float>(draw(p, static_cast<uint64_t>(i)));
                    w[p.begin + i] = float_from_bf16(bf16_from_float(x));
                }
        });
    });
}

Sample random_sample(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab) {
    const Philox random{seed, 7};
    uint64_t at = 0;
    const auto draw = [&] { return static_cast<int32_t>(random.below(at++, static_cast<uint64_t>(vocab))); };
    std::vector<int32_t> prompt(static_cast<size_t>(stem));
    for (int32_t& token : prompt) token = draw();
    Sample sample;
    for (const int64_t length : answers) {
        const bool first = sample.sequences.empty();
        Sequence& sequence = sample.sequences.emplace_back();
        if (first)
            sequence.tokens = prompt;
        else
            sequence.shared = static_cast<int32_t>(stem);
        std::vector<float> weights(prompt.size());
        for (int64_t i = 0; i < length; ++i) {
            sequence.tokens.push_back(draw());
            weights.push_back(std::array{0.0f, 1.0f, 0.5f}[random.below(at++, 3)]);
        }
        sequence.learned = learned_spans(weights);
    }
    if (answers.size() > 1) sample.pairs = ranked_pairs(answers.size(), RankedPairs::all, {});
    return sample;
}

Sample random_answers(uint64_t seed, int64_t stem, const std::vector<int64_t>& answers, int64_t vocab) {
    Sample sample = random_sample(seed, stem, answers, vocab);
    for (Sequence& sequence : sample.sequences) {
        const auto begin = static_cast<int32_t>(std::max<int64_t>(stem, 1)),
                   end = static_cast<int32_t>(sequence.length());
        sequence.learned.clear();
        if (begin < end) sequence.learned.push_back({begin, end, 1});
    }
    return sample;
}

Sample alone(const Sample& sample, size_t number) {
    return {.sequences = {{.tokens = sample.whole(number), .learned = sample.sequences[number].learned}}};
}

}  // namespace colonnade
