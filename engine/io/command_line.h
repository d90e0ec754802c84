#pragma once
// Runs the body of a program's main(): parses its arguments, then calls `body`. Wrong usage is Exit::config, reported
// on one line like any other error (engine/device/error.h).

#include <CLI/CLI.hpp>

#include "engine/device/error.h"

namespace colonnade {

inline int run_command(const char* name, CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
    return run_program(name, [&] {
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& e) {
            if (e.get_exit_code() == 0) return app.exit(e);  // --help
            fail(Exit::config, "{} (see {} --help)", e.what(), name);
        }
        return body();
    });
}

}  // namespace colonnade
