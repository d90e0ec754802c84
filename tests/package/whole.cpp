// Training's libraries from outside: a program with --version whose body reads a config.
#include "engine/program/command_line.h"
#include "train/config/config.h"

int main(int argc, char** argv) {
    CLI::App app;
    std::string path;
    app.add_option("config", path);
    return colonnade::run_command("whole", app, argc, argv, [&] {
        std::printf("max_length %ld\n", static_cast<long>(colonnade::load_config(path, {}).config.max_length));
        return 0;
    });
}
