#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "engine/device/device.h"
#include "engine/device/opened_cublaslt.h"

namespace colonnade {

bool built_with_cuda() {
    return true;
}

std::vector<CudaDevice> cuda_devices() {
    std::vector<CudaDevice> devices;
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) return devices;
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp p{};
        if (cudaGetDeviceProperties(&p, i) == cudaSuccess)
            devices.push_back({p.name, p.major * 10 + p.minor, p.totalGlobalMem, {p.uuid.bytes, sizeof p.uuid.bytes}});
    }
    return devices;
}

std::string cuda_libraries() {
    int cuda = 0;
    cudaRuntimeGetVersion(&cuda);
    if (!has_cublaslt()) return fmt::format("CUDA {}.{}", cuda / 1000, cuda / 10 % 100);
    const size_t blas = cublasLtGetVersion();
    return fmt::format("CUDA {}.{}, cuBLASLt {}.{}.{}", cuda / 1000, cuda / 10 % 100, blas / 10000, blas / 100 % 100,
                       blas % 100);
}

}  // namespace colonnade
