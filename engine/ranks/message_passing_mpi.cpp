#include <algorithm>
#include <cstdlib>

#include "engine/device/error.h"
#include "engine/ranks/message_passing.h"
#include "engine/ranks/opened_mpi.h"

namespace colonnade::mpi {
namespace {

int count_of(size_t bytes) {
    require(bytes <= size_t{1} << 30, "a message of {} bytes", bytes);  // MPI counts in int
    return static_cast<int>(bytes);
}

}  // namespace

bool built_in() {
    return true;
}

std::string library_version() {
    if (!has_mpi()) return "";
    std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
    int length = 0;
    MPI_Get_library_version(text.data(), &length);
    const std::string version = text.data();
    return version.substr(0, std::min(version.size(), version.find_first_of(",\n")));
}

World start() {
    World world;
    if (launched_size() < 2) return world;
    // Without this Open MPI needs ptrace rights to copy between processes, which containers deny.
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world.size);
    if (world.size != launched_size())
        fail(Exit::config, "the launcher started {} processes, but MPI joins {}: is this build's MPI the launcher's?",
             launched_size(), world.size);
    MPI_Comm machine;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &machine);
    MPI_Comm_rank(machine, &world.local_rank);
    MPI_Comm_size(machine, &world.local_size);
    MPI_Comm_free(&machine);
    return world;
}

void finish() {
    MPI_Finalize();
}

void barrier() {
    MPI_Barrier(MPI_COMM_WORLD);
}

void broadcast(void* data, size_t bytes, int root) {
    MPI_Bcast(data, count_of(bytes), MPI_BYTE, root, MPI_COMM_WORLD);
}

void all_gather(void* into, const void* own, size_t bytes) {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const bool in_place = own == static_cast<char*>(into) + static_cast<size_t>(rank) * bytes;
    MPI_Allgather(in_place ? MPI_IN_PLACE : own, count_of(bytes), MPI_BYTE, into, count_of(bytes), MPI_BYTE,
                  MPI_COMM_WORLD);
}

void gather(void* into, const void* own, size_t bytes) {
    MPI_Gather(own, count_of(bytes), MPI_BYTE, into, count_of(bytes), MPI_BYTE, 0, MPI_COMM_WORLD);
}

void all_to_all(void* into, const void* from, size_t bytes) {
    MPI_Alltoall(from, count_of(bytes), MPI_BYTE, into, count_of(bytes), MPI_BYTE, MPI_COMM_WORLD);
}

}  // namespace colonnade::mpi
