// generate: answers prompts with a trained model, using its chat template.

#include <deque>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "data/samples/encode.h"
#include "data/text/choose_template.h"
#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/folders/adapter_folder.h"
#include "train/model/generate.h"
#include "train/model/weight_folder.h"
#include "train/run/local_names.h"
#include "train/run/machine.h"

using namespace colonnade;

namespace {

struct Options {
    std::string model, base, tokenizer, chat_template = own_template, system, prompts_file, logits_out;
    std::string template_kwargs;
    std::vector<std::string> prompts;
    int64_t max_length = 0, threads = 0;
    bool raw = false, allow_spelled_out_markers = false;
    GenerateOptions generate;
};

Json template_variables(const Options& o) {
    if (o.template_kwargs.empty()) return Json::object();
    Json variables = parse_json(o.template_kwargs, "--chat-template-kwargs");
    if (!variables.is_object()) fail(Exit::config, "--chat-template-kwargs: expected an object of JSON");
    return variables;
}

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

/// The base of a PEFT folder: --base, or what adapter_config.json names.
std::string base_of(const Options& o, const AdapterConfig& adapter, LocalNames& names) {
    if (!o.base.empty()) return names.model(o.base);
    if (adapter.base.empty()) fail(Exit::config, "{}: adapter_config.json names no base model; pass --base", o.model);
    const std::string base = names.model(adapter.base);
    if (!std::filesystem::exists(base))
        fail(Exit::config, "{}: the base model '{}' is not on this machine; pass --base", o.model, base);
    return base;
}

int run(Options o) {
    LocalNames names;
    o.model = names.model(o.model);
    o.tokenizer = names.model(o.tokenizer, ModelFiles::tokenizer);
    Config machine;
    machine.threads = o.threads;
    machine.device = DeviceChoice::cpu;
    settle_machine(machine);
    std::optional<AdapterConfig> adapter;
    if (is_adapter_folder(o.model)) adapter = read_adapter_config(o.model);
    if (!adapter && !o.base.empty()) fail(Exit::config, "{}: --base is for a folder of adapters", o.model);
    const std::string model = adapter ? base_of(o, *adapter, names) : o.model;
    for (const std::string& notice : names.notices()) fmt::print(stderr, "note: {}\n", notice);
    const ModelConfig config = read_model_config(model);
    for (const std::string& notice : config.notices) fmt::print(stderr, "note: {}\n", notice);
    if (config.score_head || (adapter && adapter->score_head))
        fail(Exit::data, "{}: a reward model scores answers and has no head that could generate text", o.model);
    const bool own_tokenizer = !adapter || has_tokenizer(o.model);
    const TextFolder text = read_text_folder(!o.tokenizer.empty() ? o.tokenizer : own_tokenizer ? o.model : model);
    const auto& tokenizer = text.tokenizer;
    EncodeOptions encode;
    encode.chat_template = choose_template(text, o.chat_template, {.variables = template_variables(o)});
    encode.end_ids = text.end_ids;
    encode.allow_spelled_out_markers = o.allow_spelled_out_markers;
    encode.max_length = config.max_position_embeddings;
    encode.vocab_size = config.vocab_size;
    const Encoder encoder(tokenizer, encode);

    const ParameterList parameters(config);
    Arena arena(Device::cpu, static_cast<size_t>(parameters.size()) * sizeof(float) + Arena::alignment);
    const Tensor weights = arena.tensor("weights", DType::f32, {parameters.size()});
    load_weights(parameters, config, model, weights);
    if (adapter) {
        const ParameterList list = lora_parameters(config, adapter->lora);
        std::vector<float> pairs(static_cast<size_t>(list.size()));
        const Tensor flat(pairs.data(), DType::f32, {list.size()});
        load_adapter(o.model, list, flat);
        merge_lora(adapter->lora, list, flat, parameters, weights);
    }
    const int64_t max_length = o.max_length ? o.max_length : std::min<int64_t>(config.max_position_embeddings, 4096);
    Generator generator(config, view_parameters(parameters, weights), max_length);

    const Context ctx;
    GenerateOptions options = o.generate;
    options.stop_ids = encoder.stop_ids();
    LogitsFile logits;
    for (const std::string& prompt : all_prompts(o)) {
        std::vector<Message> messages;
        if (!o.system.empty()) messages.push_back({"system", o.system, {}});
        messages.push_back({"user", prompt, {}});
        const std::vector<int32_t> ids = o.raw ? encoder.encode_plain_prompt(prompt) : encoder.encode_prompt(messages);
        if (!o.logits_out.empty()) {
            logits.add(ctx, generator, ids);
            continue;
        }
        fmt::print("> {}\n{}\n\n", prompt, tokenizer->decode(generator.generate(ctx, ids, options)));
        std::fflush(stdout);
    }
    if (!o.logits_out.empty()) logits.write(o.logits_out);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Options o;
    CLI::App app{"Answer prompts with a trained model; without --prompt, reads one prompt per line from stdin"};
    app.add_option("model", o.model,
                   "Hugging Face folder, GGUF file, PEFT folder of adapters, or the name of one: org/name")
        ->required();
    app.add_option("--base", o.base, "base model of the adapters (default: the one they name)");
    app.add_option("--prompt,-p", o.prompts, "a prompt; may be repeated");
    app.add_option("--prompts-file", o.prompts_file, "file with one prompt per line");
    app.add_option("--system", o.system, "system message");
    app.add_flag("--raw", o.raw, "continue the prompt as plain text, without the chat template");
    app.add_option("--tokenizer", o.tokenizer, "folder, file or name of the tokenizer (default: the model's)");
    app.add_option("--chat-template", o.chat_template,
                   "auto: the model's own, else chatml; a built-in name; a Jinja file or text")
        ->capture_default_str();
    app.add_option("--chat-template-kwargs", o.template_kwargs,
                   "variables of the template as JSON, such as '{\"enable_thinking\": false}'");
    app.add_flag("--allow-spelled-out-markers", o.allow_spelled_out_markers,
                 "let the template write markers that are not single tokens");
    app.add_option("--max-new-tokens", o.generate.max_new_tokens, "longest answer, in tokens")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--temperature", o.generate.temperature, "sampling temperature; 0: greedy")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--top-p", o.generate.top_p, "sample from the most probable tokens with this total probability")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    app.add_option("--seed", o.generate.seed, "seed of the sampling")->capture_default_str();
    app.add_option("--max-length", o.max_length,
                   "most tokens of prompt and answer together (default: the model's limit, at most 4096)")
        ->check(CLI::PositiveNumber);
    app.add_option("--threads", o.threads, "CPU threads (default: one per core)")->check(CLI::Range(0, 4096));
    app.add_option("--logits-out", o.logits_out,
                   "write the logits of the prompts to this safetensors file instead of answering");
    return run_command("generate", app, argc, argv, [&] { return run(o); });
}
