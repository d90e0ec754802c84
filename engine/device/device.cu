#include <cuda_runtime_api.h>

#include "engine/device/device.h"

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

}  // namespace colonnade
