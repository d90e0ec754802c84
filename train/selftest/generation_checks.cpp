// The check of generation in step_checks.h.

#include <algorithm>
#include <cmath>

#include "train/generation/generator.h"
#include "train/selftest/step_checks.h"

namespace colonnade {
namespace {

constexpr int64_t longest_prompt = 16, longest_answer = 24;

std::vector<int32_t> prompt_of(const Subject& subject) {
    std::vector<int32_t> prompt;
    for (const Sample& sample : subject.samples)
        if (std::vector<int32_t> tokens = sample.whole(0); tokens.size() > prompt.size()) prompt = tokens;
    prompt.resize(std::min<size_t>(prompt.size(), longest_prompt));
    return prompt;
}

/// Logits after each of `tokens`, which the decoder reads one by one.
std::vector<float> stepped_logits(Generator& generator, const Context& ctx, std::span<const int32_t> tokens) {
    Decoder& decoder = generator.decoder();
    std::vector<float> logits;
    for (size_t i = 0; i < tokens.size(); ++i) {
        const Decoder::Row row{.token = tokens[i], .position = static_cast<int32_t>(i)};
        decoder.set_rows(ctx, {&row, 1});
        decoder.step(ctx);
        decoder.take();
        const HostCopy copy = HostCopy::of(ctx.gpu, decoder.last_logits());
        const auto* const first = copy.tensor().as<float>();
        logits.insert(logits.end(), first, first + copy.tensor().numel());
    }
    return logits;
}

double root_mean_square(const std::vector<float>& values) {
    double squares = 0;
    for (const float x : values) squares += static_cast<double>(x) * static_cast<double>(x);
    return std::sqrt(squares / static_cast<double>(values.size()));
}

/// -log of the probability that `logits` give `token`.
double nll_of(std::span<const float> logits, int32_t token) {
    const double largest = std::ranges::max(logits);
    double sum = 0;
    for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
    return largest + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

}  // namespace

Finding check_generation(const Subject& subject) {
    const auto learner = subject.learner({.packs = 1, .length = longest_prompt + longest_answer});
    const Context ctx = learner->context();
    const ModelConfig& config = learner->config();
    const GeneratorOptions options{
        .max_length = longest_prompt + longest_answer, .lora = learner->options().lora, .gpu = learner->options().gpu};
    Generator generator(config, learner->model().weights(), options);
    std::vector<int32_t> tokens = prompt_of(subject);
    const size_t prompt = tokens.size();
    for (const int32_t token : generator.generate(ctx, tokens, {.max_new_tokens = longest_answer}))
        tokens.push_back(token);
    const std::vector<float> cached = stepped_logits(generator, ctx, tokens);
    const std::vector<float> whole = generator.prompt_logits(ctx, tokens);
    // The same tokens as a text of which the answer is learned: training's own forward pass.
    Sample text{.sequences = {{.tokens = tokens}}};
    text.sequences[0].learned = {{static_cast<int32_t>(prompt), static_cast<int32_t>(tokens.size()), 1}};
    std::vector<double> nll;
    learner->evaluate(ctx, make_batch({{&text}}), &nll);

    // Relative to the size of logits. A log-probability moves by at most twice what logits move.
    const double size = root_mean_square(whole);
    const auto vocab = static_cast<size_t>(config.vocab_size);
    const auto at = [&](const std::vector<float>& logits, size_t i) {
        return std::span(logits).subspan(i * vocab, vocab);
    };
    double logits = 0, answers = 0, logps = 0;
    for (size_t i = 0; i < cached.size(); ++i)
        logits = std::max(logits, std::abs(static_cast<double>(cached[i]) - static_cast<double>(whole[i])));
    for (size_t i = prompt; i < tokens.size(); ++i) {
        const auto before = at(whole, i - 1);
        // By how much the token is not the best one: 0, or a tie that rounding decides.
        answers = std::max(answers, static_cast<double>(std::ranges::max(before)) -
                                        static_cast<double>(before[static_cast<size_t>(tokens[i])]));
        logps = std::max(logps, std::abs(nll_of(at(cached, i - 1), tokens[i]) - nll[i - prompt]));
    }
    const double bound = options.gpu ? 0.1 : 1e-5;
    const auto named = [&](double gap, const char* of) {
        return Finding{.found = gap / size, .bound = bound, .where = fmt::format("{}, {}", of, subject.name)};
    };
    return worst_of({named(logits, "logits"), named(answers, "tokens"), named(logps / 2, "log-probabilities")});
}

}  // namespace colonnade
