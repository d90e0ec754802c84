// export: turns a checkpoint into a Hugging Face folder, or any model into a GGUF file. The adapters of a LoRA run are
// merged into the base, or exported alone.

#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/export.h"
#include "train/model/stored_weights.h"
#include "train/run/export_source.h"

namespace colonnade {
namespace {

struct Options {
    std::string source, output, base, format, dtype;
    bool adapter = false;
};

void print_notices(const std::vector<std::string>& notices) {
    for (const std::string& notice : notices) fmt::print(stderr, "note: {}\n", notice);
}

int run_gguf(const Options& o) {
    if (path_exists(o.output)) fail(Exit::config, "{}: already exists; give the path of a new file", o.output);
    const char* const type = o.dtype == "float32"    ? "F32"
                             : o.dtype == "float16"  ? "F16"
                             : o.dtype == "bfloat16" ? "BF16"
                                                     : "Q8_0";
    const GgufResult result = export_to_gguf({.source = o.source,
                                              .base = o.base,
                                              .path = o.output,
                                              .type = o.dtype.empty() ? nullptr : find_gguf_type(type),
                                              .adapter = o.adapter});
    print_notices(result.notices);
    fmt::print("{}: {}\n", o.output, result.what);
    return 0;
}

int run_folder(const Options& o) {
    if (path_exists(o.output + "/config.json") || is_adapter_folder(o.output))
        fail(Exit::config, "{}: already contains a model; give a new folder", o.output);
    if (has_stored_weights(o.source) && !path_exists(o.source + "/manifest.json"))  // a checkpoint may be both
        fail(Exit::config,
             "{}: is a model already; a folder is written from checkpoint-<step> of a run. For a GGUF file of any "
             "model: export MODEL FILE.gguf",
             o.source);
    if (o.dtype == "q8_0") fail(Exit::config, "--dtype q8_0 is of GGUF files; give --format gguf");
    if (o.adapter && !o.base.empty())
        fail(Exit::config, "--base has no effect on adapters in a folder, which --adapter writes; leave it out");
    std::optional<DType> dtype;
    if (!o.dtype.empty()) dtype = o.dtype == "float32" ? DType::f32 : o.dtype == "bfloat16" ? DType::bf16 : DType::f16;
    const CheckpointSource run(o.source, o.base, o.adapter);
    print_notices(run.notices);
    const Learner& learner = *run.learner;
    DType stored = DType::f32;
    if (o.adapter)
        export_adapter(export_request(run.config, run.encoder, learner, o.output), *run.lora);
    else if (run.lora)
        stored = export_merged(run.config, run.encoder, learner, o.output, dtype);
    else if (run.freeze)
        stored = export_with_frozen(export_request(run.config, run.encoder, learner, o.output, dtype), learner);
    else
        stored = export_model(export_request(run.config, run.encoder, learner, o.output, dtype));
    fmt::print("{}: step {}, {} parameters as {}\n", o.output, run.step,
               o.adapter ? learner.parameters().count() : ParameterList(learner.config()).count(), name_of(stored));
    return 0;
}

int run(const Options& o) {
    const bool named_gguf = o.output.ends_with(".gguf");
    return o.format == "gguf" || (o.format.empty() && named_gguf) ? run_gguf(o) : run_folder(o);
}

}  // namespace

Work export_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    Options& o = *options;
    app.add_option("checkpoint", o.source,
                   "folder checkpoint-<step> of a run, or a run folder without a model: its newest one; for GGUF any "
                   "model or adapters: a folder, a file or a name")
        ->required()
        ->type_name("CHECKPOINT");
    app.add_option("folder", o.output, "new folder, or GGUF file, to write")->required()->type_name("FOLDER");
    app.add_option("--format", o.format,
                   "safetensors: a Hugging Face folder; gguf: a file for llama.cpp (default: gguf for a name that ends "
                   "with .gguf, else safetensors)")
        ->check(CLI::IsMember({"safetensors", "gguf"}));
    app.add_flag("--adapter", o.adapter, "LoRA: write the adapters alone, as a PEFT folder or a GGUF file");
    app.add_option("--base", o.base,
                   "LoRA, frozen layers: folder or name of the base model (default: the one in the config, or that the "
                   "adapters name)")
        ->type_name("MODEL");
    app.add_option(
           "--dtype", o.dtype,
           "type of the weights (default: that of the model that training began with, else float32); q8_0: GGUF, "
           "8 bits")
        ->excludes("--adapter")
        ->check(CLI::IsMember({"float32", "bfloat16", "float16", "q8_0"}));
    return [options] { return run(*options); };
}

}  // namespace colonnade
