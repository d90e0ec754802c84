// colonnade: the program. Links to it that have the name of a command (build/bin/train) are that command.

#include "engine/device/threads.h"
#include "train/program/commands.h"

const char* colonnade::waiting_threads(const char* const* argv) {
    const CommandMatch match = match_command(argv);
    return match.command && *match.command->waiting_threads ? match.command->waiting_threads : threads_sleep;
}

int main(int argc, char** argv) {
    return colonnade::run_colonnade(argc, argv);
}
