#include "train/generation_options.h"

#include "train/run/machine.h"

namespace colonnade {

void GenerationOptions::declare(CLI::App& app) {
    Sampling& s = generate.sampling;
    const auto share = CLI::Range(0.0, 1.0);
    app.add_option("model", load.model,
                   "Hugging Face folder or name, GGUF file, PEFT folder of adapters, or checkpoint-<step> of a run")
        ->required()
        ->type_name("MODEL");
    app.add_option("--base", load.base, "base model of the adapters (default: the one they name)")->type_name("MODEL");
    app.add_option("--system", system, "system message");
    app.add_option("--tokenizer", load.tokenizer, "folder, file or name of the tokenizer (default: the model's)")
        ->type_name("MODEL");
    app.add_option("--chat-template", load.chat_template,
                   "auto: the model's own, else chatml; a built-in name; a Jinja file or text (default: auto, or that "
                   "of the checkpoint's run)");
    app.add_option("--chat-template-kwargs", template_variables,
                   "variables of the template as JSON, such as '{\"enable_thinking\": false}'");
    app.add_flag("--allow-spelled-out-markers", load.allow_spelled_out_markers,
                 "let the template write markers that are not single tokens");
    app.add_option("--max-new-tokens", generate.max_new_tokens, "longest answer, in tokens")
        ->capture_default_str()
        ->check(at_least(1));
    app.add_option("--temperature", s.temperature, "sampling temperature; 0: greedy")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--top-k", s.top_k, "sample from this many of the most probable tokens; 0: all")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--top-p", s.top_p, "sample from the most probable tokens with this total probability")
        ->capture_default_str()
        ->check(share);
    app.add_option("--min-p", s.min_p, "sample from tokens with at least this share of the largest probability")
        ->capture_default_str()
        ->check(share);
    app.add_option("--repetition-penalty", s.repetition_penalty,
                   "divides positive logits of tokens that have occurred, multiplies negative ones; 1: off")
        ->capture_default_str()
        ->check(CLI::Range(0.01, 100.0));
    app.add_option("--seed", s.seed, "seed of the sampling")->capture_default_str();
    app.add_option("--stop", stops, "text that ends an answer, which does not contain it; may be repeated");
    app.add_flag("--ignore-eos", ignore_eos, "answers do not end at the model's end tokens");
    app.add_option("--max-length", max_length, "most tokens of prompt and answer together")->check(at_least(1));
    app.add_option("--device", device, "auto: a GPU if there is one")
        ->capture_default_str()
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
    app.add_option("--device-index", device_index, "which GPU")->check(CLI::Range(0, 1023));
    app.add_option("--threads", threads, "CPU threads (default: one per core)")->check(CLI::Range(0, 4096));
}

OpenModel open_model(GenerationOptions& o) {
    Config machine;
    machine.threads = o.threads;
    machine.device_index = o.device_index;
    machine.device = o.device == "cpu"    ? DeviceChoice::cpu
                     : o.device == "cuda" ? DeviceChoice::cuda
                                          : DeviceChoice::automatic;
    OpenModel open;
    if (settle_machine(machine) == Device::cuda) open.gpu = std::make_unique<Gpu>(static_cast<int>(o.device_index));
    o.load.gpu = open.gpu.get();
    if (!o.template_variables.empty()) {
        o.load.template_variables = parse_json(o.template_variables, "--chat-template-kwargs");
        if (!o.load.template_variables.is_object())
            fail(Exit::config, "--chat-template-kwargs: expected an object of JSON");
    }
    open.model = std::make_unique<LoadedModel>(o.load);
    if (open.gpu && !open.model->on_gpu()) {
        if (o.device == "cuda")
            fail(Exit::config, "--device cuda: attention has no GPU kernel for head_dim {}; use --device cpu",
                 open.model->config().head_dim);
        open.gpu.reset();
    }
    for (const std::string& notice : open.model->notices()) fmt::print(stderr, "note: {}\n", notice);
    if (!o.ignore_eos) o.generate.stop_ids = open.model->encoder().stop_ids();
    return open;
}

}  // namespace colonnade
