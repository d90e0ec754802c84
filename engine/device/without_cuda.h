#pragma once
// What every GPU function does in a build without CUDA (*_without_cuda.cpp).

#include "engine/device/error.h"

namespace colonnade {

[[noreturn]] inline void no_cuda() {
    fail(Exit::config, "this build has no CUDA (nvcc was not found when it was configured)");
}

}  // namespace colonnade
