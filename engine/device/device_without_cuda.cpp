#include "engine/device/device.h"

namespace colonnade {

bool built_with_cuda() {
    return false;
}
std::vector<CudaDevice> cuda_devices() {
    return {};
}

}  // namespace colonnade
