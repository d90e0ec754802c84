#include "engine/ranks/message_passing.h"

#include <unistd.h>

#include <cstdlib>

namespace colonnade::mpi {

static int number_in(const auto& variables, int otherwise) {
    for (const char* name : variables)
        if (const char* number = std::getenv(name)) return std::atoi(number);
    return otherwise;
}

int launched_size() {
    // Open MPI; MPICH, Intel MPI and srun --mpi=pmi2.
    return number_in(std::array{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}, 1);
}

int launched_rank() {
    return number_in(rank_variables, 0);
}

int launched_local_size() {
    return number_in(std::array{"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}, 0);
}

std::string host_name() {
    char name[256] = {};
    gethostname(name, sizeof name - 1);
    return name;
}

}  // namespace colonnade::mpi
