#pragma once
// The commands of the program `colonnade`. A new one is a function that declares its options, in a file
// <name>_command.cpp, and a line in the table of commands.cpp: help, completion and man page follow.

#include <span>
#include <string>
#include <vector>

#include "engine/program/command_line.h"

namespace colonnade {

std::span<const Command> commands();

/// The command that a command line names: by its first words ("colonnade bench step ..."), or by the name of the program
/// ("bench_step ..."), for links to this one. May be called before the constructors of libraries.
struct CommandMatch {
    const Command* command = nullptr;  ///< null: none
    int words = 0;                     ///< words of the command line that name it, the program's among them
};
CommandMatch match_command(const char* const* argv);

/// The command of this name, "bench step"; null if there is none.
const Command* find_command(const std::string& name);
/// The names that begin with `family` and a space: "bench" has step, generate, ...
std::vector<const Command*> commands_of(const std::string& family);

/// What --help prints: of one command, of a family, of the whole program.
std::string command_help(const Command& command, const std::string& name);
std::string family_help(const std::string& family);
std::string program_help();

/// Throws Exit::config for words that name no command, with the nearest name.
[[noreturn]] void refuse_command(const std::vector<std::string>& words);

/// The whole program; returns the exit code.
int run_colonnade(int argc, const char* const* argv);

}  // namespace colonnade
