// A library in place of NVIDIA's NVML, with two GPUs: the first is well, the second is slowed by heat, has a lower power
// cap and has lost bits. With FAKE_NVML=broken it does not start.

#include <chrono>
#include <cstdlib>
#include <cstring>

extern "C" {

int nvmlInit_v2() {
    const char* wish = std::getenv("FAKE_NVML");
    return wish && !std::strcmp(wish, "broken") ? 9 : 0;  // 9: the driver is not loaded
}
int nvmlShutdown() {
    return 0;
}
int nvmlSystemGetDriverVersion(char* text, unsigned length) {
    std::strncpy(text, "580.65.06", length);
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int* version) {
    *version = 13000;
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
    *count = 2;
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** gpu) {
    static char gpus[2];
    *gpu = &gpus[index];
    gpus[index] = static_cast<char>(index);
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char* uuid, void** gpu) {
    if (std::strcmp(uuid, "GPU-00010203-0405-0607-0809-0a0b0c0d0eff") != 0) return 6;  // not found
    return nvmlDeviceGetHandleByIndex_v2(1, gpu);
}
/// 500 W.
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {
    using namespace std::chrono;
    *millijoules = static_cast<unsigned long long>(
        duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count() / 2);
    return 0;
}
static bool ill(void* gpu) {
    return *static_cast<char*>(gpu) == 1;
}
int nvmlDeviceGetName(void*, char* text, unsigned length) {
    std::strncpy(text, "NVIDIA Fake", length);
    return 0;
}
int nvmlDeviceGetClockInfo(void* gpu, int type, unsigned* mhz) {
    *mhz = type == 1 && ill(gpu) ? 900 : 1980;
    return 0;
}
int nvmlDeviceGetMaxClockInfo(void*, int, unsigned* mhz) {
    *mhz = 1980;
    return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void* gpu, unsigned* milliwatts) {
    *milliwatts = ill(gpu) ? 400000 : 700000;
    return 0;
}
int nvmlDeviceGetPowerManagementDefaultLimit(void*, unsigned* milliwatts) {
    *milliwatts = 700000;
    return 0;
}
int nvmlDeviceGetEccMode(void*, int* current, int* pending) {
    *current = *pending = 1;
    return 0;
}
int nvmlDeviceGetTotalEccErrors(void* gpu, int kind, int, unsigned long long* count) {
    *count = kind == 1 && ill(gpu) ? 3 : 0;
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void* gpu, unsigned long long* bits) {
    *bits = ill(gpu) ? 0x20 | 0x01 : 0x01;
    return 0;
}
// nvmlDeviceGetTemperature is missing, as a function may be in an older driver.
}
