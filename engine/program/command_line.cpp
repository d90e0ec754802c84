#include "engine/program/command_line.h"

#include "engine/device/threads.h"
#include "engine/program/help.h"

namespace colonnade {

void declare_usual_flags(CLI::App& app, const std::string& name) {
    app.name(name);
    app.set_help_flag("--help,-h", "print this page, then stop");
    app.set_version_flag("--version", version_text(name.c_str()), "print version, commit and build, then stop");
}

int run_command(const char* name, CLI::App& app, int argc, const char* const* argv, const Work& body) {
    settle_libraries();
    return run_program(name, [&] {
        declare_usual_flags(app, name);
        if (!dynamic_cast<const HelpFormatter*>(app.get_formatter().get()))
            app.formatter(std::make_shared<HelpFormatter>());
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
