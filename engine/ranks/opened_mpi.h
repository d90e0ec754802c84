#pragma once
// MPI: linked, or opened when a launcher has started several ranks (engine/device/opened_library.h). Opened it is Open
// MPI, whose file has had one name since version 2. Other implementations have handles of another kind.

#define OMPI_SKIP_MPICXX 1  // skips the C++ interface, which is no longer part of the standard
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#ifdef COLONNADE_OPENS_LIBRARIES
#ifndef OMPI_MAJOR_VERSION
#error "this mpi.h is not Open MPI's: a portable build needs the package libopenmpi-dev"
#endif
#include "engine/device/opened_library.h"

namespace colonnade {

inline OpenedLibrary& mpi_library() {
    static OpenedLibrary library({.name = "Open MPI",
                                  .variable = "COLONNADE_MPI",
                                  .files = {"libmpi.so.40", "/usr/lib64/openmpi/lib/libmpi.so.40"},
                                  .remedy = "Several ranks need it: install the package openmpi-bin and start them by "
                                            "its mpirun",
                                  .unusable = {{"libmpi.so.12", "MPICH or a relative of it"}},
                                  .global = true});
    return library;
}

inline bool has_mpi() {
    return mpi_library().opens();
}

COLONNADE_OPENED(mpi_library, MPI_Allgather);
COLONNADE_OPENED(mpi_library, MPI_Alltoall);
COLONNADE_OPENED(mpi_library, MPI_Barrier);
COLONNADE_OPENED(mpi_library, MPI_Bcast);
COLONNADE_OPENED(mpi_library, MPI_Comm_free);
COLONNADE_OPENED(mpi_library, MPI_Comm_rank);
COLONNADE_OPENED(mpi_library, MPI_Comm_size);
COLONNADE_OPENED(mpi_library, MPI_Comm_split_type);
COLONNADE_OPENED(mpi_library, MPI_Finalize);
COLONNADE_OPENED(mpi_library, MPI_Gather);
COLONNADE_OPENED(mpi_library, MPI_Get_library_version);
COLONNADE_OPENED(mpi_library, MPI_Init_thread);

}  // namespace colonnade

// Open MPI's predefined handles are addresses of data in the library.
#undef MPI_COMM_WORLD
#undef MPI_INFO_NULL
#undef MPI_BYTE
#define MPI_COMM_WORLD static_cast<MPI_Comm>(::colonnade::mpi_library().symbol("ompi_mpi_comm_world"))
#define MPI_INFO_NULL static_cast<MPI_Info>(::colonnade::mpi_library().symbol("ompi_mpi_info_null"))
#define MPI_BYTE static_cast<MPI_Datatype>(::colonnade::mpi_library().symbol("ompi_mpi_byte"))
#else

namespace colonnade {
inline bool has_mpi() {
    return true;
}
}  // namespace colonnade
#endif
