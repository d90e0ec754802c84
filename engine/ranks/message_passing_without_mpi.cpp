#include "engine/device/error.h"
#include "engine/ranks/message_passing.h"

namespace colonnade::mpi {

bool built_in() {
    return false;
}

std::string library_version() {
    return "";
}

World start() {
    if (launched_size() > 1)
        fail(Exit::config,
             "{} processes were started together, but this build has no MPI (it was not found when it was configured): "
             "install libopenmpi-dev and build again, or start one process",
             launched_size());
    return {};
}

void finish() {}

// Never called: a single process has no other rank to talk to (engine/ranks/ranks.h).
static void no_other_rank() {
    fail(Exit::internal, "a message to another rank, in a build without MPI");
}
void barrier() {
    no_other_rank();
}
void broadcast(void*, size_t, int) {
    no_other_rank();
}
void all_gather(void*, const void*, size_t) {
    no_other_rank();
}
void gather(void*, const void*, size_t) {
    no_other_rank();
}
void all_to_all(void*, const void*, size_t) {
    no_other_rank();
}

}  // namespace colonnade::mpi
