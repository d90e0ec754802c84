#pragma once
// What every main() uses: command line, --help, --version, errors and exit codes.

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "engine/device/error.h"

namespace colonnade {

/// What a program does when its arguments are parsed; returns the exit code.
using Work = std::function<int()>;

/// Parses the arguments, then runs `body` in run_program() and returns the exit code. Adds --version, and --help as
/// engine/program/help.h shows it. Wrong usage is Exit::config, reported on one line like any other error
/// (engine/device/error.h). OpenMP and OpenBLAS are settled (engine/device/threads.h).
int run_command(const char* name, CLI::App& app, int argc, const char* const* argv, const Work& body);

/// Gives the program its name, --help and --version, as run_command() does.
void declare_usual_flags(CLI::App& app, const std::string& name);

/// A program of several commands, such as `git commit`. One entry of a table is one command.
struct Command {
    const char* name;                  ///< what a user types: "train", "bench step"
    const char* alone;                 ///< name of the same command as a program of its own: "bench_step"; "": none
    const char* summary;               ///< what it does, as a sentence without a full stop
    Work (*declare)(CLI::App&);        ///< adds the options; returns what runs when they are parsed
    const char* arguments = "";        ///< forms of the arguments that the options do not show: a line each
    const char* waiting_threads = "";  ///< engine/device/threads.h; "": as in other programs
    bool hidden = false;               ///< not listed
};

/// The whole numbers that an option takes.
inline CLI::Range at_least(int64_t n) {
    return CLI::Range(n, int64_t{1} << 30);
}

/// Text of --version: version, commit, compiler, instruction set, CUDA, MPI, NCCL.
std::string version_text(const char* program);
/// "2026-05-31": when the commit was made; empty if it is unknown.
std::string commit_date();

}  // namespace colonnade
