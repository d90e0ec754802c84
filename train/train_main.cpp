// train: fine-tunes or pretrains a model as a YAML config describes; under mpirun with several ranks.

#include "engine/program/command_line.h"
#include "engine/ranks/message_passing.h"
#include "train/run/trainer.h"

using namespace colonnade;

/// What the ranks need before they meet. Errors in the config are reported when they have met.
static Ranks::Options ranks_options(const std::string& path, const std::vector<std::string>& arguments) {
    Ranks::Options options{
        .program = "train",
        .advice =
            "start again with resume_from_checkpoint: auto, which continues from the last checkpoint if there is "
            "one"};
    try {
        if (mpi::launched_size() > 1) options.timeout = load_config(path, arguments).config.ddp_timeout;
    } catch (const std::exception&) {
    }
    return options;
}

int main(int argc, char** argv) {
    CLI::App app{"Train a model as a YAML config describes"};
    std::string path;
    bool plan = false, keys = false;
    app.add_option("config", path, "YAML file");
    app.add_flag("--plan", plan, "print the exact number of steps, samples, tokens and bytes, then stop");
    app.add_flag("--keys", keys, "print every config key with its meaning and default, then stop");
    app.allow_extras();
    app.footer("Any key of the config can be given as key=value or --key value.");
    return run_command("train", app, argc, argv, [&] {
        if (keys) {
            fmt::print("{}", config_help());
            return 0;
        }
        if (path.empty()) fail(Exit::config, "no config given; usage: train CONFIG.yaml [key=value ...]");
        Ranks ranks(ranks_options(path, app.remaining()));
        return ranks.guard([&] {
            LoadedConfig loaded;
            ranks.together("config", [&] { loaded = load_config(path, app.remaining()); });
            require_same(ranks, facts_of_run(loaded.config));
            std::optional<Trainer> trainer;
            ranks.together("start", [&] {
                Session session = open_session(loaded, ranks);
                require_same(ranks,
                             {{"the data (key)", session.data_key}, {"the model", to_json(session.model).dump()}});
                trainer.emplace(std::move(session), ranks);
            });
            if (!plan)
                trainer->run();
            else if (ranks.first())
                fmt::print("{}", trainer->plan(PlanView::of_stdout(PlanLength::complete)));
            return 0;
        });
    });
}
