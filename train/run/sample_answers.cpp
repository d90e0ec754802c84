#include "train/run/sample_answers.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace colonnade {
namespace {

constexpr int64_t longest_beginning = 64;  ///< tokens of a text that stand for a prompt
constexpr int64_t most_at_a_time = 8, piece = 512;
constexpr size_t printed_bytes = 400;

/// The sequence that is shown: the first, or the better one of the first pair.
size_t shown_sequence(const Sample& sample) {
    return sample.pairs.empty() ? 0 : static_cast<size_t>(sample.pairs[0].better);
}

/// Where the prompt of that sequence ends, and where its reference does.
struct Reference {
    int64_t prompt, end;
};
Reference reference_of(const Sample& sample) {
    const Sequence& first = sample.sequences[shown_sequence(sample)];
    if (const int64_t prompt = sample.common(); prompt > 0 && !sample.pairs.empty()) return {prompt, first.length()};
    if (first.learned.empty()) return {first.length(), first.length()};
    const auto& [begin, end, weight] = first.learned[0];
    if (begin <= 1) return {std::min(longest_beginning, (first.length() + 3) / 4), first.length()};
    return {begin, end};
}

GeneratorOptions generator_options(const Session& session, const std::vector<SamplePrompt>& prompts) {
    const Config& c = session.config;
    int64_t longest = 0;
    for (const SamplePrompt& prompt : prompts) longest = std::max(longest, std::ssize(prompt.tokens));
    return {.max_length = std::min(longest + c.eval_max_new_tokens, session.model.max_position_embeddings),
            .batch = std::min<int64_t>(std::ssize(prompts), most_at_a_time),
            .lora = lora_settings(c),
            .piece = piece};
}

/// In one line, shortened in the middle.
std::string one_line(std::string text) {
    std::ranges::replace(text, '\n', ' ');
    if (text.size() <= printed_bytes) return text;
    const auto inside = [&](size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80; };
    size_t head = printed_bytes / 2, tail = text.size() - printed_bytes / 2;
    while (head > 0 && inside(head)) --head;
    while (tail < text.size() && inside(tail)) ++tail;
    return text.substr(0, head) + " ... " + text.substr(tail);
}

}  // namespace

std::vector<SamplePrompt> choose_prompts(const Session& session) {
    const TokenStore& store = session.eval.store;
    const int64_t wanted = std::min(session.config.eval_table_size, store.size());
    std::vector<SamplePrompt> prompts;
    for (int64_t i = 0; i < wanted; ++i) {
        const int64_t at = i * store.size() / wanted;
        const Sample sample = store.sample(at);
        const auto [prompt, end] = reference_of(sample);
        if (prompt < 1 || prompt >= session.model.max_position_embeddings) continue;
        const std::vector<int32_t> whole = sample.whole(shown_sequence(sample));
        const auto begin = whole.begin();
        prompts.push_back({store.place(at), {begin, begin + prompt}, {begin + prompt, begin + end}});
    }
    return prompts;
}

SampleAnswers::SampleAnswers(const Session& session, const Learner& learner)
    : session_(session), prompts_(choose_prompts(session)) {
    if (prompts_.empty()) return;
    GeneratorOptions options = generator_options(session, prompts_);
    options.gpu = learner.options().gpu;
    generator_.emplace(session.model, learner.model().weights(), options);
    GenerateOptions generate{.max_new_tokens = session.config.eval_max_new_tokens};
    if (session.encoder->tokenizer()) generate.stop_ids = session.encoder->stop_ids();
    for (const int64_t id : session.model.eos_token_ids) generate.stop_ids.push_back(static_cast<int32_t>(id));
    for (const SamplePrompt& prompt : prompts_) requests_.push_back({.prompt = prompt.tokens, .options = generate});
}

size_t SampleAnswers::planned_bytes(const Session& session) {
    const std::vector<SamplePrompt> prompts = choose_prompts(session);
    if (prompts.empty()) return 0;
    const DType matrices = session.device == Device::cuda ? DType::bf16 : DType::f32;
    return Generator::plan(session.model, generator_options(session, prompts), matrices, session.device,
                           base_code(session.config).has_value())
        .bytes();
}

std::string SampleAnswers::text_of(const std::vector<int32_t>& tokens) const {
    const auto& tokenizer = session_.encoder->tokenizer();
    return tokenizer ? tokenizer->decode(tokens) : fmt::format("{}", fmt::join(tokens, " "));
}

std::vector<SampleAnswer> SampleAnswers::answer(const Context& ctx) {
    if (!generator_) return {};
    const std::vector<Answer> answers = generator_->answer({.device = ctx.device, .gpu = ctx.gpu}, requests_);
    std::vector<SampleAnswer> samples;
    for (size_t i = 0; i < answers.size(); ++i)
        samples.push_back({.row = prompts_[i].row,
                           .prompt = text_of(prompts_[i].tokens),
                           .answer = text_of(answers[i].tokens),
                           .reference = text_of(prompts_[i].reference)});
    return samples;
}

std::vector<std::string> lines_of(const std::vector<SampleAnswer>& samples) {
    std::vector<std::string> lines;
    for (const SampleAnswer& sample : samples) {
        lines.push_back(fmt::format("sample {}: {}", sample.row, one_line(sample.prompt)));
        lines.push_back(fmt::format("    answer     {}", one_line(sample.answer)));
        lines.push_back(fmt::format("    reference  {}", one_line(sample.reference)));
    }
    return lines;
}

}  // namespace colonnade
