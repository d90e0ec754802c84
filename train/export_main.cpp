// export: turns a checkpoint into a Hugging Face folder. The adapters of a LoRA run are merged into the base, or
// exported alone.

#include <filesystem>

#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/folders/adapter_folder.h"
#include "train/folders/checkpoint.h"
#include "train/folders/export.h"
#include "train/folders/initial_weights.h"
#include "train/run/local_names.h"
#include "train/run/run_model.h"

using namespace colonnade;

int main(int argc, char** argv) {
    CLI::App app{"Write the model of a checkpoint as a Hugging Face folder"};
    std::string checkpoint, folder, base;
    std::optional<DType> dtype;
    bool adapter = false;
    const auto set_dtype = [&](const std::string& name) {
        dtype = name == "float32" ? DType::f32 : name == "bfloat16" ? DType::bf16 : DType::f16;
    };
    app.add_option("checkpoint", checkpoint, "checkpoint folder, checkpoint-<step>")->required();
    app.add_option("folder", folder, "new folder to write")->required();
    app.add_flag("--adapter", adapter, "LoRA: write the adapters alone, as a PEFT folder");
    app.add_option("--base", base,
                   "LoRA, frozen layers: folder or name of the base model (default: the one in the config)")
        ->excludes("--adapter");
    app.add_option_function<std::string>("--dtype", set_dtype,
                                         "type of the weights (default: that of the model that training began with, "
                                         "else float32)")
        ->excludes("--adapter")
        ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
    return run_command("export", app, argc, argv, [&] {
        if (std::filesystem::exists(folder + "/config.json") || is_adapter_folder(folder))
            fail(Exit::config, "{}: already contains a model; give a new folder", folder);
        const WholeCheckpoint whole = check_checkpoint(checkpoint);
        const ModelConfig model = checkpoint_model(whole);
        const std::string config_path = checkpoint + "/config.yaml";
        Config config = parse_config(read_file(config_path), config_path).config;
        const std::optional<LoraSettings> lora = lora_settings(config);
        const std::optional<FreezeSettings> freeze = freeze_settings(config);
        if (!lora && (adapter || (!base.empty() && !freeze)))
            fail(Exit::config, "{}: {} is for runs with finetuning_type lora; this run has finetuning_type {}",
                 checkpoint, adapter ? "--adapter" : "--base", freeze ? "freeze" : "full");
        if (!base.empty()) {
            if (config.tokenizer_name_or_path == config.model_name_or_path) config.tokenizer_name_or_path = base;
            config.model_name_or_path = base;
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
        if (adapter)
            export_adapter(export_request(config, encoder, learner, folder), *lora);
        else if (lora)
            stored = export_merged(config, encoder, learner, folder, dtype);
        else if (freeze)
            stored = export_with_frozen(export_request(config, encoder, learner, folder, dtype), learner);
        else
            stored = export_model(export_request(config, encoder, learner, folder, dtype));
        fmt::print("{}: step {}, {} parameters as {}\n", folder, state.step,
                   adapter ? learner.parameters().count() : ParameterList(model).count(), name_of(stored));
        return 0;
    });
}
