// export: turns a checkpoint into a Hugging Face folder.

#include <filesystem>

#include "engine/command_line.h"
#include "train/checkpoint.h"
#include "train/export.h"
#include "train/session.h"

using namespace colonnade;

int main(int argc, char** argv) {
    CLI::App app{"Write the model of a checkpoint as a Hugging Face folder"};
    std::string checkpoint, folder;
    DType stored = DType::f32;
    app.add_option("checkpoint", checkpoint, "a folder checkpoint-<step>")->required();
    app.add_option("folder", folder, "where to write")->required();
    app.add_option("--dtype", stored, "of the weights")
        ->transform(CLI::CheckedTransformer(
            std::map<std::string, DType>{{"float32", DType::f32}, {"bfloat16", DType::bf16}, {"float16", DType::f16}}));
    return run_command("export", app, argc, argv, [&] {
        if (std::filesystem::exists(folder + "/config.json"))
            fail(Exit::config, "{}: holds a model already; give a new folder", folder);
        const ModelConfig model = checkpoint_model(checkpoint);
        Learner learner(model, {.training = false});
        const TrainerState state = load_checkpoint(checkpoint, learner);
        const Config config = parse_config(state.config_yaml, checkpoint + "/config.yaml").config;
        export_model(export_request(config, make_encoder(config, model.vocab_size), learner, folder, stored));
        fmt::print("{}: step {}, {} parameters as {}\n", folder, state.step, learner.parameters().count(),
                   name_of(stored));
        return 0;
    });
}
