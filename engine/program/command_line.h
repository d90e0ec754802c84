#pragma once
// What every main() uses: command line, --version, errors and exit codes.

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "engine/device/error.h"

namespace colonnade {

/// Parses the arguments, then runs `body` in run_program() and returns the exit code. Adds --version. Wrong usage is
/// Exit::config, reported on one line like any other error (engine/device/error.h). OpenMP and OpenBLAS are settled
/// (engine/device/threads.h).
int run_command(const char* name, CLI::App& app, int argc, char** argv, const std::function<int()>& body);

/// Text of --version: version, commit, compiler, instruction set, CUDA, MPI, NCCL.
std::string version_text(const char* program);

}  // namespace colonnade
