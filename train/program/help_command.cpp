// help: explains a command.

#include <fmt/ranges.h>

#include "train/program/commands.h"

namespace colonnade {

Work help_command(CLI::App& app) {
    app.allow_extras();
    return [&app] {
        const std::vector<std::string> words = app.remaining();
        const std::string name = fmt::format("{}", fmt::join(words, " "));
        if (words.empty())
            fmt::print("{}", program_help());
        else if (const Command* command = find_command(name))
            fmt::print("{}", command_help(*command, "colonnade " + name));
        else if (!commands_of(name).empty())
            fmt::print("{}", family_help(name));
        else
            refuse_command(words);
        return 0;
    };
}

}  // namespace colonnade
