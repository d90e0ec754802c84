#pragma once
// NCCL: linked, or opened when ranks on GPUs join (engine/device/opened_library.h).

#include <nccl.h>

#ifdef COLONNADE_OPENS_LIBRARIES
#include "engine/device/opened_library.h"

namespace colonnade {

inline OpenedLibrary& nccl_library() {
    static OpenedLibrary library(
        {.name = "NCCL",
         .variable = "COLONNADE_NCCL",
         .files = {"$NCCL_HOME/lib/libnccl.so.2", "libnccl.so.2", "/usr/local/cuda/lib64/libnccl.so.2",
                   "$VIRTUAL_ENV/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2",
                   "$CONDA_PREFIX/lib/libnccl.so.2",
                   "$CONDA_PREFIX/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2",
                   "$HOME/.local/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2"},
         .remedy = "Several ranks on GPUs need it: install NVIDIA's package libnccl2 or, in a virtual environment of "
                   "Python, nvidia-nccl-cu13; or train on one GPU, or with device: cpu"});
    return library;
}

inline bool has_nccl() {
    return nccl_library().opens();
}

COLONNADE_OPENED(nccl_library, ncclAllGather);
COLONNADE_OPENED(nccl_library, ncclAllReduce);
COLONNADE_OPENED(nccl_library, ncclBroadcast);
COLONNADE_OPENED(nccl_library, ncclCommAbort);
COLONNADE_OPENED(nccl_library, ncclCommDestroy);
COLONNADE_OPENED(nccl_library, ncclCommGetAsyncError);
COLONNADE_OPENED(nccl_library, ncclCommInitRank);
COLONNADE_OPENED(nccl_library, ncclGetErrorString);
COLONNADE_OPENED(nccl_library, ncclGetLastError);
COLONNADE_OPENED(nccl_library, ncclGetUniqueId);
COLONNADE_OPENED(nccl_library, ncclGetVersion);
COLONNADE_OPENED(nccl_library, ncclGroupEnd);
COLONNADE_OPENED(nccl_library, ncclGroupStart);
COLONNADE_OPENED(nccl_library, ncclReduceScatter);

}  // namespace colonnade
#else

namespace colonnade {
inline bool has_nccl() {
    return true;
}
}  // namespace colonnade
#endif
