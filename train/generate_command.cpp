// generate: answers prompts with a trained model, using its chat template.

#include <deque>
#include <iostream>
#include <sstream>

#include "engine/io/files.h"
#include "engine/io/safetensors.h"
#include "train/generation/answer_text.h"
#include "train/generation_options.h"

namespace colonnade {
namespace {

struct Options {
    GenerationOptions generation;
    std::string prompts_file, logits_out;
    std::vector<std::string> prompts;
    int64_t batch = 0, samples = 1;
    bool raw = false, timing = false, json = false;
};

std::vector<std::string> all_prompts(const Options& o) {
    std::vector<std::string> prompts = o.prompts;
    const auto add_lines = [&](std::istream& text) {
        for (std::string line; std::getline(text, line);)
            if (!line.empty()) prompts.push_back(line);
    };
    if (!o.prompts_file.empty()) {
        std::istringstream text(read_file(o.prompts_file, limits::prompts_bytes, Readable::streams));
        add_lines(text);
    }
    if (prompts.empty()) add_lines(std::cin);
    return prompts;
}

/// The logits of whole prompts, for scripts/check_export.py: tensors "input_ids" and "logits" of the first prompt,
/// "input_ids.1" and "logits.1" of the second, and so on.
class LogitsFile {
  public:
    void add(const Context& ctx, Generator& generator, std::vector<int32_t> ids) {
        const std::string number = prompts_.empty() ? "" : fmt::format(".{}", prompts_.size());
        std::vector<float> values = generator.prompt_logits(ctx, ids);
        Prompt& prompt = prompts_.emplace_back(Prompt{std::move(ids), std::move(values)});
        const auto n = static_cast<int64_t>(prompt.ids.size());
        const int64_t vocab = static_cast<int64_t>(prompt.logits.size()) / n;
        tensors_.push_back({"input_ids" + number, Tensor(prompt.ids.data(), DType::i32, {n}), {1, n}});
        tensors_.push_back({"logits" + number, Tensor(prompt.logits.data(), DType::f32, {n, vocab}), {1, n, vocab}});
    }
    void write(const std::string& path) const { write_safetensors_file(path, tensors_); }

  private:
    struct Prompt {
        std::vector<int32_t> ids;
        std::vector<float> logits;
    };
    std::deque<Prompt> prompts_;
    std::vector<NamedTensor> tensors_;
};

/// The chat that asks a prompt.
std::vector<Message> messages_of(const Options& o, const std::string& prompt) {
    std::vector<Message> messages;
    if (!o.generation.system.empty()) messages.push_back({"system", o.generation.system, {}});
    messages.push_back({"user", prompt, {}});
    return messages;
}

/// Where answers go. Answer i is number i % samples to prompt i / samples.
class Output {
  public:
    virtual ~Output() = default;
    /// Returns false at a stop string.
    virtual bool add(size_t i, int32_t token) = 0;
    /// Answer i is complete.
    virtual void done(size_t i, AnswerEnd end) = 0;
};

/// Prints answers in the order of the prompts: the first that is not done as it grows, those behind it when their turn
/// comes.
class Printer : public Output {
  public:
    Printer(const Options& o, const Tokenizer& tokenizer, const std::vector<std::string>& prompts) {
        for (const std::string& prompt : prompts)
            for (int64_t sample = 0; sample < o.samples; ++sample)
                answers_.push_back({"> " + prompt + "\n", {tokenizer, o.generation.stops}});
    }
    bool add(size_t i, int32_t token) override {
        answers_[i].waiting += answers_[i].text.add(token);
        if (i == at_) show(answers_[i]);
        return !answers_[i].text.stopped();
    }
    void done(size_t i, AnswerEnd) override {
        answers_[i].complete = true;
        for (; at_ < answers_.size() && answers_[at_].complete; ++at_) {
            answers_[at_].waiting += answers_[at_].text.finish() + "\n\n";
            show(answers_[at_]);
        }
        if (at_ < answers_.size()) show(answers_[at_]);
    }

  private:
    struct One {
        std::string waiting;
        AnswerText text;
        bool complete = false;
    };
    static void show(One& one) {
        fmt::print("{}", std::exchange(one.waiting, {}));
        std::fflush(stdout);
    }
    std::deque<One> answers_;
    size_t at_ = 0;
};

/// Prints a line of JSON per prompt, in their order, when its answers are complete. The line is a row of stage grpo that
/// lacks its rewards: {"prompt": messages or text, "completions": [text, ...], "finish_reason": ["stop" | "length", ...]}.
class JsonPrinter : public Output {
  public:
    JsonPrinter(const Options& o, const Tokenizer& tokenizer, const std::vector<std::string>& prompts)
        : samples_(static_cast<size_t>(o.samples)) {
        for (const std::string& prompt : prompts) {
            Json row = {{"prompt", o.raw ? Json(prompt) : Json::array()}};
            if (!o.raw)
                for (const Message& m : messages_of(o, prompt))
                    row["prompt"].push_back({{"role", m.role}, {"content", m.content}});
            if (!o.raw && !o.generation.load.template_variables.empty())
                row["chat_template_kwargs"] = o.generation.load.template_variables;
            row["completions"] = Json::array();
            row["finish_reason"] = Json::array();
            rows_.push_back(std::move(row));
            for (size_t sample = 0; sample < samples_; ++sample) answers_.push_back({{tokenizer, o.generation.stops}});
        }
    }
    bool add(size_t i, int32_t token) override {
        answers_[i].written += answers_[i].text.add(token);
        return !answers_[i].text.stopped();
    }
    void done(size_t i, AnswerEnd end) override {
        answers_[i].end = end;
        for (; at_ < answers_.size() && answers_[at_].end; ++at_) {
            One& answer = answers_[at_];
            Json& row = rows_[at_ / samples_];
            const bool cut_off = answer.end == AnswerEnd::max_new_tokens || answer.end == AnswerEnd::cache_full;
            row["completions"].push_back(std::move(answer.written) + answer.text.finish());
            row["finish_reason"].push_back(cut_off ? "length" : "stop");
            if ((at_ + 1) % samples_ == 0)
                fmt::print("{}\n", std::exchange(row, {}).dump(-1, ' ', false, Json::error_handler_t::replace));
        }
    }

  private:
    struct One {
        AnswerText text;
        std::string written{};
        std::optional<AnswerEnd> end{};
    };
    size_t samples_;
    std::vector<Json> rows_;  ///< of prompts
    std::deque<One> answers_;
    size_t at_ = 0;
};

std::vector<Request> encode_all(const Options& o, const Encoder& encoder, const std::vector<std::string>& prompts) {
    std::vector<Request> requests;
    for (const std::string& prompt : prompts) {
        Request request{
            .prompt = o.raw ? encoder.encode_plain_prompt(prompt) : encoder.encode_prompt(messages_of(o, prompt)),
            .options = o.generation.generate};
        for (int64_t sample = 0; sample < o.samples; ++sample) {
            if (o.samples > 1) request.options.sampling.stream = requests.size();
            requests.push_back(request);
        }
    }
    return requests;
}

/// Room for the longest prompt with its answer, as far as the model goes.
int64_t max_length(const Options& o, const ModelConfig& config, const std::vector<Request>& requests) {
    if (o.generation.max_length) return o.generation.max_length;
    int64_t longest = 0;
    for (const Request& r : requests) longest = std::max(longest, std::ssize(r.prompt));
    return std::min(config.max_position_embeddings, longest + o.generation.generate.max_new_tokens);
}

void answer_all(const Options& o, const Context& ctx, Generator& generator, const Tokenizer& tokenizer,
                const std::vector<std::string>& prompts, std::vector<Request>& requests) {
    std::unique_ptr<Output> output;
    if (o.json)
        output = std::make_unique<JsonPrinter>(o, tokenizer, prompts);
    else
        output = std::make_unique<Printer>(o, tokenizer, prompts);
    for (size_t i = 0; i < requests.size(); ++i)
        requests[i].on_token = [&output, i](int32_t token) { return output->add(i, token); };
    const auto start = std::chrono::steady_clock::now();
    const std::vector<Answer> answers =
        generator.answer(ctx, requests, [&](size_t i, const Answer& answer) { output->done(i, answer.end); });
    if (!o.timing) return;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    int64_t read = 0, written = 0;
    for (const Request& r : requests) read += std::ssize(r.prompt);
    for (const Answer& a : answers) written += std::ssize(a.tokens);
    fmt::print(stderr, "{} prompts of {} tokens, answers of {} tokens in {:.2f} s: {:.1f} tokens/s\n", requests.size(),
               read, written, seconds, static_cast<double>(written) / seconds);
}

int run(Options& o) {
    const OpenModel open = open_model(o.generation);
    const Encoder& encoder = open.model->encoder();
    const std::vector<std::string> prompts = all_prompts(o);
    std::vector<Request> requests = encode_all(o, encoder, prompts);
    if (requests.empty()) return 0;
    const int64_t batch = o.logits_out.empty() ? std::min<int64_t>(std::ssize(requests), o.batch ? o.batch : 8) : 1;
    Generator generator(open.model->config(), open.model->weights(),
                        {.max_length = max_length(o, open.model->config(), requests),
                         .batch = batch,
                         .lora = open.model->lora(),
                         .gpu = open.gpu.get()});
    if (o.logits_out.empty()) {
        answer_all(o, open.context(), generator, *encoder.tokenizer(), prompts, requests);
        return 0;
    }
    LogitsFile logits;
    for (const Request& r : requests) logits.add(open.context(), generator, r.prompt);
    logits.write(o.logits_out);
    return 0;
}

}  // namespace

Work generate_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    Options& o = *options;
    o.generation.declare(app);
    app.add_option("--prompt,-p", o.prompts, "a prompt; may be repeated");
    app.add_option("--prompts-file", o.prompts_file, "file with one prompt per line")->type_name("FILE");
    app.add_flag("--raw", o.raw, "continue the prompt as plain text, without the chat template");
    app.add_option("--batch", o.batch, "prompts that are answered at a time (default: up to 8)")
        ->check(CLI::Range(1, 4096));
    CLI::Option* samples =
        app.add_option("--samples", o.samples, "answers to each prompt, each with random numbers of its own")
            ->capture_default_str()
            ->check(CLI::Range(1, 4096));
    CLI::Option* json =
        app.add_flag("--json", o.json,
                     "print a line of JSON per prompt: prompt, completions and why each ended, a row of "
                     "stage grpo without rewards");
    app.add_flag("--timing", o.timing, "print tokens and seconds to stderr");
    app.add_option("--logits-out", o.logits_out,
                   "write the logits of the prompts to this safetensors file instead of answering")
        ->type_name("FILE")
        ->excludes(samples)
        ->excludes(json);
    return [options] { return run(*options); };
}

}  // namespace colonnade
