#include "engine/program/command_line.h"

#include "engine/device/threads.h"

namespace colonnade {

int run_command(const char* name, CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
    settle_libraries();
    return run_program(name, [&] {
        app.set_version_flag("--version", version_text(name), "print version, commit and build, then stop");
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& e) {
            if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
            fail(Exit::config, "{} (see {} --help)", e.what(), name);
        }
        return body();
    });
}

}  // namespace colonnade
