#include "train/program/commands.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "engine/device/threads.h"
#include "engine/device/version.h"
#include "engine/program/help.h"
#include "train/config/nearest_name.h"
#include "train/run/run_arguments.h"

namespace colonnade {

using Declare = Work(CLI::App&);
Declare init_command, train_command, plan_command, prepare_command, teach_command, check_packing_command,
    explain_step_command, inspect_command, selftest_command, doctor_command, chat_command, generate_command,
    export_command, report_command, compare_command, train_tokenizer_command, bench_step_command,
    bench_generate_command, bench_prepare_command, bench_layers_command, bench_save_command, bench_attention_command,
    completion_command, complete_command, man_command, help_command;

namespace {

/// A decoded token has hundreds of short parallel regions.
constexpr const char* decodes = threads_look_around;
constexpr const char* run = run_argument_forms;

constexpr Command table[] = {
    {"init", "", "Writes a config with comments for a model and its data", init_command},
    {"train", "train", "Trains a model as a config says, or a model on data", train_command, run},
    {"plan", "", "Prints the exact steps, tokens and bytes of a run", plan_command, run},
    {"prepare", "prepare", "Tokenizes the data of a run and reports on it", prepare_command, run},
    {"inspect", "", "Shows a packed row as a picture, and suspicious rows", inspect_command, run},
    {"teach", "", "Writes what a model says as a teacher, for stage distill", teach_command, run},
    {"check-packing", "check_packing", "Checks that packed rows train as separate samples do", check_packing_command,
     run},
    {"explain-step", "", "Shows which rows the gradient of a step comes from", explain_step_command},
    {"selftest", "", "Measures what Colonnade promises, on this machine", selftest_command, run},
    {"doctor", "", "Examines the machine: devices, disk, libraries, with remedies", doctor_command},
    {"chat", "chat", "Talks with a model: each line is a message that it answers", chat_command, "", decodes},
    {"generate", "generate", "Answers prompts, from options or one per line of stdin", generate_command, "", decodes},
    {"export", "export", "Writes a model as a Hugging Face folder or a GGUF file", export_command},
    {"report", "", "Makes the report of a run again: one page with curves and all", report_command},
    {"compare", "", "Lays runs side by side: differences, last values, curves", compare_command},
    {"tokenizer train", "train_tokenizer", "Trains a SentencePiece tokenizer on texts and data",
     train_tokenizer_command},
    {"bench step", "bench_step", "Times optimizer steps and the phases within them", bench_step_command},
    {"bench generate", "bench_generate", "Times prompts and decoding, beside the bandwidth of memory",
     bench_generate_command, "", decodes},
    {"bench prepare", "bench_prepare", "Times the tokenizing of data beside encoding alone", bench_prepare_command,
     run},
    {"bench layers", "bench_layers", "Times every op of a model at one size", bench_layers_command},
    {"bench save", "bench_save", "Times a checkpoint in the background, and loading it", bench_save_command},
    {"bench attention", "bench_attention", "Times FlashMask attention by mask family", bench_attention_command},
    {"completion", "", "Prints the completion script of a shell", completion_command},
    {"help", "", "Explains a command", help_command, "[COMMAND]"},
    {"man", "", "Prints the manual page", man_command, "", "", true},
    {"complete", "", "Prints what can follow the words of a command line", complete_command, "", "", true},
};

/// Number of words of a name, if `argv` begins with them; else 0.
int matching_words(const char* name, const char* const* argv) {
    int words = 0;
    for (; *name; ++argv, ++words) {
        const size_t length = std::strcspn(name, " ");
        if (!*argv || std::strncmp(*argv, name, length) != 0 || (*argv)[length] != '\0') return 0;
        name += length + (name[length] == ' ');
    }
    return words;
}

const char* file_name(const char* path) {
    const char* const slash = std::strrchr(path, '/');
    return slash ? slash + 1 : path;
}

std::string spaced(const char* const* words, int count) {
    return fmt::format("{}", fmt::join(words, words + count, " "));
}

std::string list(const std::vector<const Command*>& shown) {
    std::vector<HelpEntry> entries;
    for (const Command* c : shown) entries.push_back({c->name, c->summary});
    return help_table(entries);
}

/// The names of a family's commands without the family's.
std::vector<std::string> last_words(const std::vector<const Command*>& family) {
    std::vector<std::string> words;
    for (const Command* c : family) words.push_back(std::string(c->name).substr(std::string(c->name).find(' ') + 1));
    return words;
}

int run_front(const std::vector<std::string>& words) {
    const std::string first = words.empty() ? "--help" : words[0];
    if (first == "--version") {
        fmt::print("{}\n", version_text("colonnade"));
    } else if (first == "--help" || first == "-h") {
        fmt::print("{}", program_help());
    } else if (words.size() > 1 && (words[1] == "--help" || words[1] == "-h") && !commands_of(first).empty()) {
        fmt::print("{}", family_help(first));
    } else {
        refuse_command(words);
    }
    return 0;
}

}  // namespace

std::span<const Command> commands() {
    return table;
}

CommandMatch match_command(const char* const* argv) {
    if (!argv[0]) return {};
    for (const Command& command : table)
        if (*command.alone && std::strcmp(command.alone, file_name(argv[0])) == 0) return {&command, 1};
    for (const Command& command : table)
        if (const int words = matching_words(command.name, argv + 1)) return {&command, 1 + words};
    return {};
}

const Command* find_command(const std::string& name) {
    const auto found = std::ranges::find_if(table, [&](const Command& c) { return c.name == name; });
    return found == std::end(table) ? nullptr : found;
}

std::vector<const Command*> commands_of(const std::string& family) {
    std::vector<const Command*> found;
    for (const Command& command : table)
        if (std::string_view(command.name).starts_with(family + ' ')) found.push_back(&command);
    return found;
}

std::string command_help(const Command& command, const std::string& name) {
    CLI::App app{command.summary, name};
    app.formatter(std::make_shared<HelpFormatter>(command.arguments));
    command.declare(app);
    declare_usual_flags(app, name);
    return app.help();
}

std::string family_help(const std::string& family) {
    return fmt::format("Usage: colonnade {} COMMAND [options]\n\nCommands:\n{}", family, list(commands_of(family)));
}

std::string program_help() {
    std::vector<HelpEntry> shown;
    for (const Command& command : table) {
        if (command.hidden) continue;
        const std::string name = command.name, family = name.substr(0, name.find(' '));
        const auto all = commands_of(family);
        if (all.size() < 2) {
            shown.push_back({name, command.summary});
        } else if (all[0] == &command) {
            shown.push_back({family, fmt::format("Measures: {}", fmt::join(last_words(all), ", "))});
        }
    }
    return fmt::format(
        "Colonnade {} fine-tunes language models on packed rows.\n\n"
        "Usage: colonnade COMMAND [options]     to begin: colonnade train MODEL DATA\n"
        "Commands (colonnade help COMMAND explains one):\n{}",
        COLONNADE_VERSION, help_table(shown));
}

void refuse_command(const std::vector<std::string>& words) {
    const std::string& first = words[0];
    if (const auto family = commands_of(first); !family.empty()) {
        const std::vector<std::string> names = last_words(family);
        const std::string nearest = words.size() > 1 ? nearest_name(words[1], names) : "";
        fail(Exit::config, "{}{}: expected one of {}{}", first,
             words.size() > 1 ? fmt::format(" has no '{}'", words[1]) : "", fmt::join(names, ", "),
             nearest.empty() ? "" : fmt::format(" (did you mean '{} {}'?)", first, nearest));
    }
    std::vector<std::string> names;
    for (const Command& c : table) {
        if (c.hidden) continue;
        if (first == c.alone) fail(Exit::config, "no command '{}' (it is 'colonnade {}')", first, c.name);
        names.push_back(std::string(c.name).substr(0, std::string(c.name).find(' ')));
    }
    if (first.ends_with(".yaml") || first.ends_with(".yml") || first.find('/') != first.npos)
        fail(Exit::config, "'{}' is no command; to train: colonnade train {}", first, fmt::join(words, " "));
    const std::string nearest = nearest_name(first, names);
    fail(Exit::config, "no command '{}'{}; colonnade --help lists them", first,
         nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest));
}

int run_colonnade(int argc, const char* const* argv) {
    const CommandMatch match = match_command(argv);
    if (!match.command) {
        settle_libraries();
        return run_program("colonnade", [&] { return run_front({argv + std::min(argc, 1), argv + argc}); });
    }
    const bool alone = match.words == 1;
    const std::string name = alone ? match.command->alone : "colonnade " + spaced(argv + 1, match.words - 1);
    CLI::App app{match.command->summary};
    app.formatter(std::make_shared<HelpFormatter>(match.command->arguments));
    const Work work = match.command->declare(app);
    const int named = match.words - 1;
    return run_command(name.c_str(), app, argc - named, argv + named, work);
}

}  // namespace colonnade
