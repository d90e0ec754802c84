// export: turns a checkpoint into a Hugging Face folder. The adapters of a LoRA run are merged into the base, or
// exported alone.

#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/export.h"
#include "train/folders/initial_weights.h"
#include "train/folders/run_checkpoints.h"
#include "train/run/local_names.h"
#include "train/run/run_model.h"

namespace colonnade {
namespace {

struct Options {
    std::string checkpoint, folder, base;
    std::optional<DType> dtype;
    bool adapter = false;
};

int run(Options o) {
    if (path_exists(o.folder + "/config.json") || is_adapter_folder(o.folder))
        fail(Exit::config, "{}: already contains a model; give a new folder", o.folder);
    if (const std::string newest = checkpoint_for_model(o.checkpoint); !newest.empty()) o.checkpoint = newest;
    const WholeCheckpoint whole = check_checkpoint(o.checkpoint);
    const ModelConfig model = checkpoint_model(whole);
    const std::string config_path = o.checkpoint + "/config.yaml";
    Config config = parse_config(read_file(config_path), config_path).config;
    const std::optional<LoraSettings> lora = lora_settings(config);
    const std::optional<FreezeSettings> freeze = freeze_settings(config);
    if (!lora && (o.adapter || (!o.base.empty() && !freeze)))
        fail(Exit::config, "{}: {} is for runs with finetuning_type lora; this run has finetuning_type {}",
             o.checkpoint, o.adapter ? "--adapter" : "--base", freeze ? "freeze" : "full");
    if (!o.base.empty()) {
        if (config.tokenizer_name_or_path == config.model_name_or_path) config.tokenizer_name_or_path = o.base;
        config.model_name_or_path = o.base;
    }
    LocalNames names;
    const bool same = config.tokenizer_name_or_path == config.model_name_or_path;
    config.model_name_or_path = names.model(config.model_name_or_path);
    config.tokenizer_name_or_path =
        same ? config.model_name_or_path : names.model(config.tokenizer_name_or_path, ModelFiles::tokenizer);
    config.hub_names = names.names();
    for (const std::string& notice : names.notices()) fmt::print(stderr, "note: {}\n", notice);
    Learner learner(model, {.training = false, .lora = lora, .freeze = freeze});
    if (learner.has_base()) load_base(config.model_name_or_path, learner);
    const TrainerState state = load_checkpoint(whole, learner);
    const auto encoder = make_encoder(config, load_text(config), model.vocab_size);
    DType stored = DType::f32;
    if (o.adapter)
        export_adapter(export_request(config, encoder, learner, o.folder), *lora);
    else if (lora)
        stored = export_merged(config, encoder, learner, o.folder, o.dtype);
    else if (freeze)
        stored = export_with_frozen(export_request(config, encoder, learner, o.folder, o.dtype), learner);
    else
        stored = export_model(export_request(config, encoder, learner, o.folder, o.dtype));
    fmt::print("{}: step {}, {} parameters as {}\n", o.folder, state.step,
               o.adapter ? learner.parameters().count() : ParameterList(model).count(), name_of(stored));
    return 0;
}

}  // namespace

Work export_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    Options& o = *options;
    const auto set_dtype = [&o](const std::string& name) {
        o.dtype = name == "float32" ? DType::f32 : name == "bfloat16" ? DType::bf16 : DType::f16;
    };
    app.add_option("checkpoint", o.checkpoint,
                   "folder checkpoint-<step> of a run, or a run folder without a model: its newest one")
        ->required()
        ->type_name("CHECKPOINT");
    app.add_option("folder", o.folder, "new folder to write")->required()->type_name("FOLDER");
    app.add_flag("--adapter", o.adapter, "LoRA: write the adapters alone, as a PEFT folder");
    app.add_option("--base", o.base,
                   "LoRA, frozen layers: folder or name of the base model (default: the one in the config)")
        ->type_name("MODEL")
        ->excludes("--adapter");
    app.add_option_function<std::string>("--dtype", set_dtype,
                                         "type of the weights (default: that of the model that training began with, "
                                         "else float32)")
        ->excludes("--adapter")
        ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
    return [options] { return run(*options); };
}

}  // namespace colonnade
