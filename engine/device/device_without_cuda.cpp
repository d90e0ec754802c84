#include "engine/device/device.h"

namespace colonnade {

bool built_with_cuda() {
    return false;
}
std::vector<CudaDevice> cuda_devices() {
    return {};
}
std::string cuda_libraries() {
    return "";
}

}  // namespace colonnade
