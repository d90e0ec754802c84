// train: fine-tunes or pretrains a model as a YAML config describes, or a model on data; under mpirun with several ranks.
// plan: says what it would do.

#include "engine/program/command_line.h"
#include "engine/program/help.h"
#include "engine/ranks/message_passing.h"
#include "train/run/run_arguments.h"
#include "train/run/trainer.h"

namespace colonnade {
namespace {

struct Options {
    bool plan = false, keys = false;
};

/// What the ranks need before they meet. Errors in the config are reported when they have met.
Ranks::Options ranks_options(const std::string& program, const RunArguments& arguments) {
    Ranks::Options options{
        .program = program,
        .advice =
            "start again with resume_from_checkpoint: auto, which continues from the last checkpoint if there is "
            "one"};
    try {
        if (mpi::launched_size() > 1) options.timeout = timeout_of_ranks(arguments);
    } catch (const std::exception&) {
    }
    return options;
}

int train(const std::string& program, const RunArguments& arguments, bool plan) {
    Ranks ranks(ranks_options(program, arguments));
    return ranks.guard([&] {
        LoadedConfig loaded;
        ranks.together("config", [&] { loaded = load_run(arguments, ranks); });
        require_same(ranks, facts_of_run(loaded.config));
        std::optional<Trainer> trainer;
        ranks.together("start", [&] {
            Session session = open_session(loaded, ranks, plan ? SessionUse::plan : SessionUse::run);
            require_same(ranks, {{"the data (key)", session.data_key}, {"the model", to_json(session.model).dump()}});
            const std::string version = version_text("colonnade");
            session.program = version.substr(0, version.find('\n'));
            trainer.emplace(std::move(session), ranks);
        });
        if (!plan)
            trainer->run();
        else if (ranks.first())
            fmt::print("{}", trainer->plan(PlanView::of_stdout(PlanLength::complete)));
        return 0;
    });
}

Work declare(CLI::App& app, const std::shared_ptr<Options>& options) {
    app.add_flag("--keys", options->keys, "print every config key with its meaning and default, then stop");
    app.allow_extras();
    return [options, &app] {
        if (options->keys) {
            fmt::print("{}", wrapped(config_help(), 0));
            return 0;
        }
        return train(app.get_name(), split_run_arguments(app.remaining()), options->plan);
    };
}

}  // namespace

Work train_command(CLI::App& app) {
    const auto options = std::make_shared<Options>();
    app.add_flag("--plan", options->plan, "print the exact number of steps, samples, tokens and bytes, then stop");
    return declare(app, options);
}

Work plan_command(CLI::App& app) {
    return declare(app, std::make_shared<Options>(Options{.plan = true}));
}

}  // namespace colonnade
