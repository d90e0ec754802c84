#pragma once
// cuBLASLt: linked, or opened at the first product (engine/device/opened_library.h).

#include <cublasLt.h>

#ifdef COLONNADE_OPENS_LIBRARIES
#include <fmt/format.h>

#include "engine/device/opened_library.h"

namespace colonnade {

inline OpenedLibrary& cublaslt_library() {
    // Of another major version than the headers it would not do.
    static const std::string file = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
    static const std::string in_wheel = fmt::format("nvidia/cu{}/lib/{}", CUBLAS_VER_MAJOR, file);
    static OpenedLibrary library(
        {.name = "cuBLASLt",
         .variable = "COLONNADE_CUBLASLT",
         .files = {file, "/usr/local/cuda/lib64/" + file, "$VIRTUAL_ENV/lib/python3*/site-packages/" + in_wheel,
                   "$CONDA_PREFIX/lib/" + file, "$CONDA_PREFIX/lib/python3*/site-packages/" + in_wheel,
                   "$HOME/.local/lib/python3*/site-packages/" + in_wheel},
         .remedy =
             fmt::format("Install CUDA {} or, in a virtual environment of Python, nvidia-cublas", CUBLAS_VER_MAJOR)});
    return library;
}

inline bool has_cublaslt() {
    return cublaslt_library().opens();
}

COLONNADE_OPENED(cublaslt_library, cublasLtCreate);
COLONNADE_OPENED(cublaslt_library, cublasLtDestroy);
COLONNADE_OPENED(cublaslt_library, cublasLtGetStatusString);
COLONNADE_OPENED(cublaslt_library, cublasLtGetVersion);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmul);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmulAlgoGetHeuristic);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmulDescCreate);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmulDescDestroy);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmulDescSetAttribute);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmulPreferenceCreate);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmulPreferenceDestroy);
COLONNADE_OPENED(cublaslt_library, cublasLtMatmulPreferenceSetAttribute);
COLONNADE_OPENED(cublaslt_library, cublasLtMatrixLayoutCreate);
COLONNADE_OPENED(cublaslt_library, cublasLtMatrixLayoutDestroy);

}  // namespace colonnade
#else

namespace colonnade {
inline bool has_cublaslt() {
    return true;
}
}  // namespace colonnade
#endif
