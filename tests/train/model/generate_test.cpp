// Generation: the key/value cache does not change the logits, greedy answers are the arg max, draws follow the
// distribution, and limits are kept.

#include <cmath>

#include "engine/device/arena.h"
#include "layers/linear.h"
#include "tests/support/file_test.h"
#include "tests/support/tiny_model.h"
#include "train/model/generate.h"

namespace colonnade {
namespace {

constexpr Architecture architectures[] = {Architecture::llama, Architecture::mistral, Architecture::qwen2,
                                          Architecture::qwen3};

/// A model with random weights.
struct Model {
    explicit Model(const ModelConfig& c) : config(c), learner(tiny_learner(config, DType::f32, 1, 8)) {}
    Generator generator(int64_t max_length) const { return {config, learner->model().weights(), max_length}; }
    ModelConfig config;
    std::unique_ptr<Learner> learner;
};

std::vector<int32_t> random_tokens(int64_t count, int64_t vocab) {
    return random_sample(static_cast<uint64_t>(count), 0, {count}, vocab).tokens;
}

/// Logits of every position by one forward pass over all tokens, without a cache.
std::vector<float> full_logits(const Model& model, const std::vector<int32_t>& tokens) {
    const auto n = static_cast<int64_t>(tokens.size());
    const auto lay_out = [&](Arena& arena) {
        return std::pair(Activations::lay_out(arena, model.config, {.length = n}),
                         arena.tensor("logits", DType::f32, {n, model.config.vocab_size}));
    };
    Arena plan(Device::cpu);
    lay_out(plan);
    Arena arena(Device::cpu, plan.bytes());
    auto [acts, logits] = lay_out(arena);
    std::vector<int32_t> positions(tokens.size());
    for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
    const Context ctx;
    std::vector<int32_t> ids = tokens;
    const auto view = [&](std::vector<int32_t>& v) { return Tensor(v.data(), DType::i32, {n}); };
    TransformerInput input{.packs = 1,
                           .length = n,
                           .tokens = view(ids),
                           .positions = view(positions),
                           .masks = AttentionMasks::lay_out(arena, model.config, 1, n)};
    input.masks.fill(ctx, causal_mask(n, n));
    model.learner->model().forward(ctx, input, acts);
    linear_forward(ctx, {.out = logits, .in = acts.hidden, .weight = model.learner->model().weights().head});
    return values_of<float>(logits);
}

/// Logits of tokens that are fed to the cache in pieces, whose sizes repeat `pieces`.
std::vector<float> cached_logits(Generator& generator, std::span<const int32_t> tokens,
                                 const std::vector<size_t>& pieces) {
    generator.reset();
    std::vector<float> all;
    for (size_t at = 0, i = 0; at < tokens.size(); ++i) {
        const size_t count = std::min(pieces[i % pieces.size()], tokens.size() - at);
        const std::vector<float> piece = values_of<float>(generator.feed(Context(), tokens.subspan(at, count)));
        all.insert(all.end(), piece.begin(), piece.end());
        at += count;
    }
    return all;
}

/// The largest difference divided by the root mean square.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    double worst = 0, squares = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
        squares += static_cast<double>(b[i]) * static_cast<double>(b[i]);
    }
    return worst / std::sqrt(squares / static_cast<double>(b.size()));
}

constexpr double rounding = 1e-5;  // of logits in float after some tens of operations

TEST(KvCache, GivesTheLogitsOfAFullForward) {
    for (const Architecture architecture : architectures) {
        const Model model(tiny_config(architecture, architecture == Architecture::llama));
        const std::vector<int32_t> tokens = random_tokens(70, model.config.vocab_size);
        const std::vector<float> expected = full_logits(model, tokens);
        Generator generator = model.generator(70);
        for (const std::vector<size_t>& pieces : {std::vector<size_t>{1}, {3}, {70}, {40, 1, 7}, {5, 64}})
            EXPECT_LE(difference(cached_logits(generator, tokens, pieces), expected), rounding)
                << name_of(architecture) << " in pieces of " << pieces[0];
    }
}

TEST(KvCache, GivesTheLogitsOfALongPrompt) {
    for (const Architecture architecture : {Architecture::mistral, Architecture::qwen2}) {
        ModelConfig config = tiny_config(architecture);
        for (int64_t& window : config.windows) window *= 40;  // wide enough to cross the border between two pieces
        const Model model(config);
        const std::vector<int32_t> tokens = random_tokens(1200, config.vocab_size);
        const std::vector<float> expected = full_logits(model, tokens);
        Generator generator = model.generator(1300);
        EXPECT_LE(difference(generator.prompt_logits(Context(), tokens), expected), rounding);
        EXPECT_LE(difference(cached_logits(generator, tokens, {512, 1, 100}), expected), rounding);
        // The first token of an answer comes from the end of that prompt.
        const float* last = expected.data() + expected.size() - static_cast<size_t>(config.vocab_size);
        const auto best = static_cast<int32_t>(std::max_element(last, last + config.vocab_size) - last);
        EXPECT_EQ(generator.generate(Context(), tokens, {.max_new_tokens = 1}), std::vector<int32_t>{best});
    }
}

TEST(KvCache, RespectsTheWindow) {
    for (const Architecture architecture : {Architecture::mistral, Architecture::qwen2}) {
        const Model windowed(tiny_config(architecture));
        ModelConfig all = windowed.config;
        all.windows = {0, 0};
        const std::vector<int32_t> tokens = random_tokens(30, all.vocab_size);
        Generator generator = windowed.generator(30);
        EXPECT_GT(difference(cached_logits(generator, tokens, {1}), full_logits(Model(all), tokens)), 1e-2);
    }
}

TEST(Generate, GreedyIsTheArgMaxOfFullForwards) {
    for (const Architecture architecture : architectures) {
        const Model model(tiny_config(architecture));
        const std::vector<int32_t> prompt = random_tokens(9, model.config.vocab_size);
        std::vector<int32_t> all = prompt;
        for (int i = 0; i < 12; ++i) {
            const std::vector<float> logits = full_logits(model, all);
            const auto last = logits.end() - model.config.vocab_size;
            all.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
        }
        const std::vector<int32_t> expected(all.begin() + 9, all.end());
        Generator generator = model.generator(64);
        for (int time = 0; time < 2; ++time) {
            EXPECT_EQ(generator.generate(Context(), prompt, {.max_new_tokens = 12}), expected);
            generator.generate(Context(), random_tokens(20, model.config.vocab_size),
                               {});  // must not affect the next answer
        }
    }
}

TEST(Generate, StopsAtAStopIdAndWhenTheCacheIsFull) {
    const Model model(tiny_config(Architecture::llama));
    const std::vector<int32_t> prompt = random_tokens(9, model.config.vocab_size);
    Generator generator = model.generator(40);
    const GenerateOptions sampled{.max_new_tokens = 1000, .temperature = 2, .seed = 5};
    const std::vector<int32_t> free = generator.generate(Context(), prompt, sampled);
    EXPECT_EQ(free.size(), 31u);
    GenerateOptions stopped = sampled;
    stopped.stop_ids = {-1, free[7]};
    const auto end = std::find(free.begin(), free.end(), free[7]);
    EXPECT_EQ(generator.generate(Context(), prompt, stopped), std::vector<int32_t>(free.begin(), end));
    stopped.stop_ids = {free[0]};
    EXPECT_TRUE(generator.generate(Context(), prompt, stopped).empty());
}

TEST(Generate, SampledTextFollowsTheSeed) {
    const Model model(tiny_config(Architecture::qwen3));
    const std::vector<int32_t> prompt = random_tokens(4, model.config.vocab_size);
    Generator generator = model.generator(60);
    const auto text = [&](uint64_t seed) {
        return generator.generate(Context(), prompt, {.max_new_tokens = 40, .temperature = 1, .seed = seed});
    };
    EXPECT_EQ(text(1), text(1));
    EXPECT_NE(text(1), text(2));
}

TEST(Generate, RefusesPromptsThatDoNotFit) {
    const Model model(tiny_config(Architecture::llama));
    Generator generator = model.generator(10);
    const auto prompt = [&](int64_t n) { return random_tokens(n, model.config.vocab_size); };
    expect_error(Exit::data, "the prompt is empty", [&] { generator.generate(Context(), {}, {}); });
    expect_error(Exit::data, "the prompt has 10 tokens, but prompt and answer together may have 10",
                 [&] { generator.generate(Context(), prompt(10), {}); });
    expect_error(Exit::data, "the prompt has 700 tokens", [&] { generator.generate(Context(), prompt(700), {}); });
    EXPECT_EQ(generator.generate(Context(), prompt(9), {}).size(), 1u);
    expect_error(Exit::data, "the prompt has 11 tokens", [&] { generator.prompt_logits(Context(), prompt(11)); });
    EXPECT_EQ(generator.prompt_logits(Context(), prompt(10)).size(), 10u * 29u);
    const std::vector<int32_t> foreign = {3, 29};
    expect_error(Exit::data, "token 29 is outside the vocabulary", [&] { generator.generate(Context(), foreign, {}); });
}

// --- Choosing a token ---------------------------------------------------------------------------------------------

const std::vector<float> logits = {1.0f, -0.5f, 2.0f, 0.3f, 1.9f, -3.0f, 0.3f};

/// softmax(logits / temperature), restricted to the smallest set of most likely tokens that reaches top_p.
std::vector<double> nucleus(double temperature, double top_p) {
    std::vector<double> p;
    double sum = 0;
    for (const float x : logits) sum += p.emplace_back(std::exp(static_cast<double>(x) / temperature));
    std::vector<size_t> order(p.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
    double mass = 0;
    std::vector<double> kept(p.size());
    for (const size_t i : order) {
        if (mass >= top_p * sum) break;
        kept[i] = p[i];
        mass += p[i];
    }
    for (double& x : kept) x /= mass;
    return kept;
}

TEST(ChooseToken, DrawsFollowTemperatureAndTopP) {
    constexpr int draws = 40'000;
    for (const auto& [temperature, top_p, tokens] : {std::tuple{1.0, 1.0, 7},
                                                     {0.7, 1.0, 7},
                                                     {3.0, 1.0, 7},
                                                     {1.0, 0.8, 3},
                                                     {0.5, 0.9, 3},
                                                     {1.0, 0.5, 2},
                                                     {1.0, 0.1, 1},
                                                     {1.0, 0.0, 1}}) {
        std::vector<double> expected = nucleus(temperature, top_p);
        if (top_p == 0) expected = nucleus(temperature, 0.01);  // at least one token
        std::vector<int> counts(logits.size());
        for (uint64_t i = 0; i < draws; ++i)
            ++counts[static_cast<size_t>(
                choose_token(logits, {.temperature = temperature, .top_p = top_p, .seed = 9}, i))];
        double chi2 = 0;
        int kept = 0;
        for (size_t i = 0; i < logits.size(); ++i) {
            if (expected[i] == 0) {
                EXPECT_EQ(counts[i], 0) << "token " << i << " is not in the nucleus";
                continue;
            }
            const double mean = draws * expected[i];
            chi2 += (counts[i] - mean) * (counts[i] - mean) / mean;
            ++kept;
        }
        EXPECT_EQ(kept, tokens) << "temperature " << temperature << ", top_p " << top_p;
        EXPECT_LT(chi2, 35) << "temperature " << temperature << ", top_p " << top_p;  // six degrees: p = 4e-6
    }
}

TEST(ChooseToken, GreedyIsTheFirstOfTheLargest) {
    EXPECT_EQ(choose_token(logits, {}, 0), 2);
    const std::vector<float> tied = {0, 5, 5, 1};
    EXPECT_EQ(choose_token(tied, {}, 3), 1);
    const int32_t cold = choose_token(tied, {.temperature = 1e-300}, 0);
    EXPECT_TRUE(cold == 1 || cold == 2) << cold;
    const std::vector<float> masked = {-INFINITY, 0, -INFINITY};
    for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(choose_token(masked, {.temperature = 5}, i), 1);
}

TEST(ChooseToken, RefusesNan) {
    for (const double temperature : {0.0, 1.0}) {
        std::vector<float> bad = logits;
        bad[4] = std::nanf("");
        expect_error(Exit::numerics, "the logits contain NaN",
                     [&] { choose_token(bad, {.temperature = temperature}, 0); });
    }
}

}  // namespace
}  // namespace colonnade
