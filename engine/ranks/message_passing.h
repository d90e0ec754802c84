#pragma once
// The few MPI calls that Colonnade makes, all of them collective and all about plain host memory. One file includes
// mpi.h (message_passing_mpi.cpp); where the build has no MPI, message_passing_without_mpi.cpp stands in, and a process
// is alone. Only the main thread may call. MPI ends the job itself where one of its calls fails.
//
// Data is only ever moved, never added up: what MPI's own reductions add in which order is the library's choice.

#include <cstddef>

namespace colonnade::mpi {

struct World {
    int rank = 0, size = 1;              ///< of all processes that the launcher started
    int local_rank = 0, local_size = 1;  ///< of those on this machine
};

/// True when the build found MPI.
bool built_in();
/// Processes that a launcher (mpirun, srun) says it started, from the environment; 1 where there is none.
int launched_size();

/// Joins the other processes of the launcher; alone where there is none. Once per process. Throws Exit::config where a
/// launcher started several processes of a build without MPI: each would take itself for the whole run.
World start();
void finish();

void barrier();
void broadcast(void* data, size_t bytes, int root);
/// From everybody `bytes` bytes, in rank order; `own` may be their place in `into`.
void all_gather(void* into, const void* own, size_t bytes);
/// The same on rank 0 alone; elsewhere `into` is not used.
void collect(void* into, const void* own, size_t bytes);
/// The r-th `bytes` bytes of `from` go to rank r; what rank s had for us becomes the s-th of `into`.
void exchange(void* into, const void* from, size_t bytes);

}  // namespace colonnade::mpi
