// Generation: the cache does not change the logits, whatever the pieces, the slot and the other sequences; greedy answers
// are the arg max; an answer depends on its prompt, options and seed alone; limits are kept. On every device.

#include <cmath>
#include <set>

#include "engine/device/arena.h"
#include "layers/linear.h"
#include "tests/support/file_test.h"
#include "tests/support/tiny_lora.h"
#include "tests/support/tiny_model.h"
#include "train/generation/generator.h"

namespace colonnade {
namespace {

constexpr Architecture architectures[] = {Architecture::llama, Architecture::mistral, Architecture::qwen2,
                                          Architecture::qwen3};

/// A model with random weights, on the CPU in f32 or on the GPU in bf16.
struct Model {
    explicit Model(const ModelConfig& c, Device d = Device::cpu)
        : config(c), learner(tiny_learner(config, d == Device::cuda ? DType::bf16 : DType::f32, 1, 8)) {}
    Context context() const { return learner->context(); }
    GeneratorOptions options(int64_t max_length, int64_t batch = 1) const {
        return {.max_length = max_length, .batch = batch, .gpu = learner->options().gpu};
    }
    Generator generator(int64_t max_length, int64_t batch = 1) const {
        return {config, learner->model().weights(), options(max_length, batch)};
    }
    ModelConfig config;
    std::unique_ptr<Learner> learner;
};

std::vector<int32_t> random_tokens(int64_t count, int64_t vocab) {
    return random_sample(static_cast<uint64_t>(count), 0, {count}, vocab).whole(0);
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

/// Logits of tokens that are read in pieces, whose sizes repeat `pieces`; pieces of one token are steps of the decoder.
std::vector<float> cached_logits(const Model& model, int64_t max_length, std::span<const int32_t> tokens,
                                 const std::vector<size_t>& pieces) {
    Generator generator = model.generator(max_length, 3);
    Decoder& decoder = generator.decoder();
    const Context ctx = model.context();
    constexpr int64_t slot = 2;
    std::vector<float> all;
    const auto append = [&](const Tensor& logits) {
        const HostCopy copy = HostCopy::of(ctx.gpu, logits);
        const auto* const first = copy.tensor().as<float>();
        all.insert(all.end(), first, first + copy.tensor().numel());
    };
    for (size_t at = 0, i = 0; at < tokens.size(); ++i) {
        const size_t count = std::min(pieces[i % pieces.size()], tokens.size() - at);
        const Decoder::Piece piece{slot, static_cast<int64_t>(at), tokens.subspan(at, count)};
        if (count == 1 && at > 0) {
            const Decoder::Row row{.slot = slot, .token = tokens[at], .position = static_cast<int32_t>(at)};
            decoder.set_rows(ctx, {&row, 1});
            decoder.step(ctx);
            decoder.take();
            append(decoder.last_logits());
        } else {
            const Tensor hidden = decoder.read(ctx, {&piece, 1});
            for (int64_t row = 0; row < hidden.size(0); row += decoder.rows())
                append(decoder.logits(ctx, hidden.slice(0, row, std::min(hidden.size(0), row + decoder.rows()))));
        }
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

/// Sizes that both devices can compute.
ModelConfig config_for(Device device, Architecture architecture) {
    return device == Device::cuda ? small_config(architecture) : tiny_config(architecture);
}
/// In bf16 each of some twenty operations in a row rounds to eight bits.
double bound_for(Device device) {
    return device == Device::cuda ? 0.1 : rounding;
}

struct KvCacheOnDevice : testing::TestWithParam<Device> {
    void SetUp() override {
        if (GetParam() == Device::cuda && !test_gpu()) GTEST_SKIP() << "no CUDA device";
    }
};

TEST_P(KvCacheOnDevice, GivesTheLogitsOfAFullForward) {
    for (const Architecture architecture : architectures) {
        const Model model(config_for(GetParam(), architecture), GetParam());
        const Model exact(model.config);
        const std::vector<int32_t> tokens = random_tokens(70, model.config.vocab_size);
        const std::vector<float> expected = full_logits(exact, tokens);
        // One piece is a forward pass of training: on a GPU its error is that of bf16 itself.
        const double own = difference(cached_logits(model, 70, tokens, {70}), expected);
        EXPECT_LE(own, bound_for(GetParam())) << name_of(architecture);
        const double bound = GetParam() == Device::cuda ? 2 * own : rounding;
        for (const std::vector<size_t>& pieces : {std::vector<size_t>{1}, {3}, {40, 1, 7}, {5, 64}})
            EXPECT_LE(difference(cached_logits(model, 70, tokens, pieces), expected), bound)
                << name_of(architecture) << " in pieces of " << pieces[0];
    }
}

TEST_P(KvCacheOnDevice, GivesTheLogitsOfALongPrompt) {
    for (const Architecture architecture : {Architecture::mistral, Architecture::qwen2}) {
        ModelConfig config = config_for(GetParam(), architecture);
        for (int64_t& window : config.windows) window *= 40;  // wide enough to cross the border between two pieces
        const Model model(config, GetParam()), exact(config);
        const std::vector<int32_t> tokens = random_tokens(1200, config.vocab_size);
        const std::vector<float> expected = full_logits(exact, tokens);
        Generator generator = model.generator(1300);
        EXPECT_LE(difference(generator.prompt_logits(model.context(), tokens), expected), bound_for(GetParam()));
        EXPECT_LE(difference(cached_logits(model, 1300, tokens, {512, 1, 100}), expected), bound_for(GetParam()));
        if (GetParam() == Device::cuda) continue;
        // The first token of an answer comes from the end of that prompt.
        const float* last = expected.data() + expected.size() - static_cast<size_t>(config.vocab_size);
        const auto best = static_cast<int32_t>(std::max_element(last, last + config.vocab_size) - last);
        EXPECT_EQ(generator.generate(Context(), tokens, {.max_new_tokens = 1}), std::vector<int32_t>{best});
    }
}

TEST_P(KvCacheOnDevice, RespectsTheWindow) {
    for (const Architecture architecture : {Architecture::mistral, Architecture::qwen2}) {
        const Model windowed(config_for(GetParam(), architecture), GetParam());
        ModelConfig all = windowed.config;
        all.windows = {0, 0};
        const std::vector<int32_t> tokens = random_tokens(30, all.vocab_size);
        EXPECT_GT(difference(cached_logits(windowed, 30, tokens, {1}), full_logits(Model(all), tokens)),
                  2 * bound_for(GetParam()));
    }
}

TEST_P(KvCacheOnDevice, AppliesAdaptersThatStayApart) {
    const Device device = GetParam();
    const ModelConfig config = config_for(device, Architecture::qwen2);
    const LoraSettings lora = lora_of({}, device == Device::cuda ? 8 : 3);
    const DType dtype = device == Device::cuda ? DType::bf16 : DType::f32;
    const auto learner = lora_learner(config, dtype, lora, 1, 8);
    const std::vector<int32_t> tokens = random_tokens(20, config.vocab_size);
    Generator generator(config, learner->model().weights(),
                        {.max_length = 40, .batch = 2, .lora = lora, .gpu = learner->options().gpu});
    const std::vector<float> read = generator.prompt_logits(learner->context(), tokens);
    std::vector<float> stepped;
    for (size_t i = 0; i < tokens.size(); ++i) {
        const Decoder::Row row{.slot = 1, .token = tokens[i], .position = static_cast<int32_t>(i)};
        generator.decoder().set_rows(learner->context(), {&row, 1});
        generator.decoder().step(learner->context());
        generator.decoder().take();
        const HostCopy logits = HostCopy::of(learner->options().gpu, generator.decoder().last_logits());
        stepped.insert(stepped.end(), logits.tensor().as<float>(), logits.tensor().as<float>() + config.vocab_size);
    }
    EXPECT_LE(difference(stepped, read), bound_for(device));
    const Model base(config, device);
    EXPECT_GT(difference(base.generator(40).prompt_logits(base.context(), tokens), read), 2 * bound_for(device));
}

INSTANTIATE_TEST_SUITE_P(Devices, KvCacheOnDevice, testing::Values(Device::cpu, Device::cuda),
                         [](const auto& device) { return name_of(device.param); });

TEST(Decoder, ReadsBf16MatricesAsTheirF32) {
    for (const Architecture architecture : architectures) {
        const Model model(tiny_config(architecture));  // bf16 can hold all its weights
        const ModelParameters& single = model.learner->model().weights();
        std::deque<std::vector<uint16_t>> memory;
        const auto narrow = [&](Tensor& t) {
            std::vector<uint16_t>& bits = memory.emplace_back();
            for (const float x : values_of<float>(t)) bits.push_back(bf16_from_float(x));
            t.data = bits.data();
            t.dtype = DType::bf16;
        };
        ModelParameters half = single;
        narrow(half.embedding);
        narrow(half.head);
        for (BlockParameters& block : half.blocks)
            for (const Projection p : all_projections) narrow(block.linear[p].weight);
        const std::vector<int32_t> tokens = random_tokens(23, model.config.vocab_size);
        Generator a(model.config, single, model.options(60)), b(model.config, half, model.options(60));
        EXPECT_LE(difference(b.prompt_logits(Context(), tokens), a.prompt_logits(Context(), tokens)), rounding);
        const GenerateOptions options{.max_new_tokens = 30, .sampling = {.temperature = 1}};
        EXPECT_EQ(a.generate(Context(), tokens, options), b.generate(Context(), tokens, options));
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
    const GenerateOptions sampled{.max_new_tokens = 1000, .sampling = {.temperature = 2, .seed = 5}};
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
        return generator.generate(Context(), prompt,
                                  {.max_new_tokens = 40, .sampling = {.temperature = 1, .seed = seed}});
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

/// Requests of unlike prompts, lengths and options.
std::vector<Request> many_requests(int64_t vocab) {
    std::vector<Request> requests;
    for (int64_t i = 0; i < 11; ++i) {
        Request r{.prompt = random_tokens(1 + 7 * i % 30, vocab)};
        r.options.max_new_tokens = 1 + 5 * i % 23;
        r.options.sampling = {.temperature = i % 3 ? 1.2f : 0.0f,
                              .top_p = i % 2 ? 0.9f : 1.0f,
                              .repetition_penalty = i % 4 == 1 ? 1.5f : 1.0f,
                              .top_k = i % 5 == 2 ? 7 : 0,
                              .seed = static_cast<uint64_t>(100 + i)};
        r.options.stop_ids = {static_cast<int32_t>(i)};
        requests.push_back(std::move(r));
    }
    return requests;
}

TEST(Generate, AnAnswerDoesNotDependOnTheOthers) {
    for (const Architecture architecture : architectures) {
        const Model model(tiny_config(architecture));
        const std::vector<Request> requests = many_requests(model.config.vocab_size);
        std::vector<Answer> alone;
        for (const Request& r : requests) {
            Generator generator = model.generator(64);
            alone.push_back(generator.answer(Context(), {&r, 1}).front());
        }
        for (const int64_t batch : {1, 2, 5, 16}) {
            Generator generator = model.generator(64, batch);
            for (int time = 0; time < 2; ++time) {
                std::vector<size_t> order;
                const std::vector<Answer> together =
                    generator.answer(Context(), requests, [&](size_t i, const Answer&) { order.push_back(i); });
                EXPECT_EQ(std::set<size_t>(order.begin(), order.end()).size(), requests.size());
                for (size_t i = 0; i < requests.size(); ++i) {
                    EXPECT_EQ(together[i].tokens, alone[i].tokens) << "request " << i << ", batch " << batch;
                    EXPECT_EQ(together[i].end, alone[i].end);
                }
            }
        }
    }
}

TEST(Generate, TheCallerSeesEveryTokenAndEndsTheAnswer) {
    const Model model(tiny_config(Architecture::llama));
    Generator generator = model.generator(64);
    Request request{.prompt = random_tokens(5, model.config.vocab_size), .options = {.max_new_tokens = 20}};
    std::vector<int32_t> seen;
    request.on_token = [&](int32_t token) { return seen.push_back(token), seen.size() < 4; };
    const Answer answer = generator.answer(Context(), {&request, 1}).front();
    EXPECT_EQ(answer.tokens, seen);
    EXPECT_EQ(seen.size(), 4u);
    EXPECT_EQ(answer.end, AnswerEnd::caller);
}

TEST(Generate, FindsTheBeginningOfAConversationInTheCache) {
    for (const Architecture architecture : architectures) {
        const Model model(tiny_config(architecture));
        GeneratorOptions options = model.options(128);
        options.reuse_cache = true;
        Generator keeps(model.config, model.learner->model().weights(), options), fresh = model.generator(128);
        Request request{.prompt = random_tokens(9, model.config.vocab_size), .options = {.max_new_tokens = 8}};
        for (int turn = 0; turn < 4; ++turn) {
            const Answer answer = keeps.answer(Context(), {&request, 1}).front();
            EXPECT_EQ(answer.tokens, fresh.generate(Context(), request.prompt, request.options));
            // All but the tokens that are new: the last token of the answer was never read.
            EXPECT_EQ(answer.reused, turn == 0 ? 0 : std::ssize(request.prompt) - 4);
            request.prompt.insert(request.prompt.end(), answer.tokens.begin(), answer.tokens.end());
            for (const int32_t token : {3, 1, 2}) request.prompt.push_back(token);
        }
        request.prompt[4] = request.prompt[4] == 0;  // the conversation changes
        EXPECT_EQ(keeps.answer(Context(), {&request, 1}).front().reused, 4);
    }
}

TEST(Generate, RefusesLogitsThatAreNotNumbers) {
    const Model model(tiny_config(Architecture::llama));
    const Tensor& norm = model.learner->model().weights().final_norm;
    norm.as<float>()[0] = std::nanf("");
    Generator generator = model.generator(20);
    expect_error(Exit::numerics, "the logits contain NaN",
                 [&] { generator.generate(Context(), random_tokens(3, model.config.vocab_size), {}); });
}

}  // namespace
}  // namespace colonnade
