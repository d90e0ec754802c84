#include "engine/device/error.h"
#include "engine/ranks/message_passing.h"

namespace colonnade::mpi {

bool built_in() {
    return false;
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

// Nobody is there to talk to, and a process that is alone does not (engine/ranks/ranks.h).
static void nobody() {
    fail(Exit::internal, "a message to another rank, in a build without MPI");
}
void barrier() {
    nobody();
}
void broadcast(void*, size_t, int) {
    nobody();
}
void all_gather(void*, const void*, size_t) {
    nobody();
}
void collect(void*, const void*, size_t) {
    nobody();
}
void exchange(void*, const void*, size_t) {
    nobody();
}

}  // namespace colonnade::mpi
