#pragma once
// The few MPI calls that Colonnade makes: all are collective and work on plain host memory. Only
// message_passing_mpi.cpp includes mpi.h; a build without MPI has message_passing_without_mpi.cpp instead, and one
// process. Only the main thread may call. MPI itself ends the job if one of its calls fails.
//
// MPI only moves data here. Its own reductions are not used, because their order of summation is up to the library.

#include <array>
#include <cstddef>
#include <string>

namespace colonnade::mpi {

struct World {
    int rank = 0, size = 1;              ///< among all processes that the launcher started
    int local_rank = 0, local_size = 1;  ///< among those on this machine
};

/// True if the build found MPI.
bool built_in();
/// "Open MPI v4.1.4": the library in use; empty if there is none. May be called at any time.
std::string library_version();
/// Number of processes that a launcher (mpirun, srun) started, from its environment variables; 1 without a launcher.
int launched_size();
/// This process among them, before start(); 0 without a launcher.
int launched_rank();
/// Number of them on this machine; 0 if the launcher does not tell.
int launched_local_size();
/// Environment variables with the rank: Open MPI's; MPICH's, Intel MPI's and srun's.
inline constexpr std::array rank_variables = {"OMPI_COMM_WORLD_RANK", "PMI_RANK"};

std::string host_name();

/// Joins the other processes of the launcher. Call once per process. Throws Exit::config if a launcher started several
/// processes of a build without MPI, or of one that opens MPI and finds none, because each would act as the whole run.
World start();
void finish();

void barrier();
void broadcast(void* data, size_t bytes, int root);
/// Gathers `bytes` bytes from every rank, in rank order. `own` may alias its slot in `into`.
void all_gather(void* into, const void* own, size_t bytes);
/// The same on rank 0 only; other ranks do not use `into`.
void gather(void* into, const void* own, size_t bytes);
/// Sends the r-th block of `bytes` bytes of `from` to rank r. The block received from rank s becomes the s-th of
/// `into`.
void all_to_all(void* into, const void* from, size_t bytes);

}  // namespace colonnade::mpi
