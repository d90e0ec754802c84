#pragma once
// Devices that this machine and this build offer.

#include <string>
#include <vector>

namespace colonnade {

struct CudaDevice {
    std::string name;
    int compute_capability;  ///< 90 for sm_90
    size_t memory_bytes;
    std::string uuid;  ///< the same in every process that sees this device
};

/// True when the build compiled its CUDA sources.
bool built_with_cuda();
/// The usable CUDA devices; empty without a GPU, a driver or a CUDA build. Never throws.
std::vector<CudaDevice> cuda_devices();
/// "CUDA 12.8, cuBLASLt 12.8.4": the versions in use; the second only if it is here; empty in a build without CUDA.
std::string cuda_libraries();

}  // namespace colonnade
