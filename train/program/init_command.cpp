// init: writes a config with comments for a model and its data.

#include <filesystem>

#include "engine/io/files.h"
#include "engine/program/command_line.h"
#include "train/program/starter_config.h"

namespace colonnade {
namespace {

struct Options {
    StarterRequest request;
    std::string output;
    bool force = false;
};

}  // namespace

Work init_command(CLI::App& app) {
    const auto o = std::make_shared<Options>();
    app.add_option("model", o->request.model, "Hugging Face model folder, name on the hub, or GGUF file")
        ->required()
        ->type_name("MODEL");
    app.add_option("data", o->request.data, "data files, folders, globs, or names of data sets on the hub")
        ->required()
        ->type_name("DATA");
    app.add_option("--output,-o", o->output, "write it to this file instead of the standard output")->type_name("FILE");
    app.add_flag("--force,-f", o->force, "replace the file if it exists");
    app.footer("The rows decide about stage and max_length. The file runs as it is: colonnade train my.yaml.");
    return [o] {
        std::error_code none;
        if (!o->output.empty() && !o->force && std::filesystem::exists(o->output, none))
            fail(Exit::config, "{}: exists already; --force replaces it", o->output);
        const StarterConfig starter = starter_config(o->request);
        for (const std::string& notice : starter.notices) fmt::print(stderr, "note: {}\n", notice);
        if (o->output.empty()) {
            fmt::print("{}", starter.yaml);
            return 0;
        }
        write_file_atomically(o->output, starter.yaml);
        fmt::print(stderr, "{} is written; to go on: colonnade plan {}\n", o->output, o->output);
        return 0;
    };
}

}  // namespace colonnade
