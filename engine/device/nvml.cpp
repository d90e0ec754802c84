#include "engine/device/nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <memory>

namespace colonnade {
namespace {

using Handle = void*;  // nvmlDevice_t
constexpr int multiprocessor_clock = 1, gpu_sensor = 0, uncorrected = 1, since_driver_load = 0;

/// Functions of a library that is open.
class Nvml {
  public:
    explicit Nvml(void* library) : library_(library) {}

    /// Calls a function of this name; false if the library has none or it fails.
    template <typename... Args>
    bool call(const char* name, Args... args) const {
        const auto function = reinterpret_cast<int (*)(Args...)>(dlsym(library_, name));
        return function && function(args...) == 0;
    }
    /// The number that a function writes to its last argument.
    template <typename T, typename... Args>
    std::optional<T> number(const char* name, Args... args) const {
        T value{};
        if (!call(name, args..., &value)) return std::nullopt;
        return value;
    }
    template <typename... Args>
    std::string text(const char* name, Args... args) const {
        std::array<char, 96> buffer{};
        return call(name, args..., buffer.data(), static_cast<unsigned>(buffer.size())) ? buffer.data() : "";
    }

  private:
    void* library_;
};

template <typename To, typename From>
std::optional<To> converted(const std::optional<From>& value, To divisor = 1) {
    if (!value) return std::nullopt;
    return static_cast<To>(*value) / divisor;
}

std::vector<std::string> reasons_of(uint64_t bits) {
    struct Reason {
        uint64_t bit;
        const char* name;
    };
    // Idle clocks, clocks that a user has set and clocks of a group of GPUs are no trouble.
    constexpr Reason reasons[] = {{0x04, "power cap"},
                                  {0x08, "hardware slowdown"},
                                  {0x20, "heat"},
                                  {0x40, "heat of hardware"},
                                  {0x80, "power brake"}};
    std::vector<std::string> names;
    for (const auto& [bit, name] : reasons)
        if (bits & bit) names.emplace_back(name);
    return names;
}

GpuState state_of(const Nvml& nvml, Handle gpu) {
    GpuState state{.name = nvml.text("nvmlDeviceGetName", gpu)};
    state.clock_mhz = converted<int>(nvml.number<unsigned>("nvmlDeviceGetClockInfo", gpu, multiprocessor_clock));
    state.max_clock_mhz = converted<int>(nvml.number<unsigned>("nvmlDeviceGetMaxClockInfo", gpu, multiprocessor_clock));
    constexpr double milliwatts = 1000;
    state.power_cap_watts =
        converted<double>(nvml.number<unsigned>("nvmlDeviceGetEnforcedPowerLimit", gpu), milliwatts);
    state.full_cap_watts =
        converted<double>(nvml.number<unsigned>("nvmlDeviceGetPowerManagementDefaultLimit", gpu), milliwatts);
    state.celsius = converted<int>(nvml.number<unsigned>("nvmlDeviceGetTemperature", gpu, gpu_sensor));
    int ecc = 0, pending = 0;
    if (nvml.call("nvmlDeviceGetEccMode", gpu, &ecc, &pending)) state.ecc = ecc != 0;
    state.uncorrected_errors = converted<uint64_t>(
        nvml.number<unsigned long long>("nvmlDeviceGetTotalEccErrors", gpu, uncorrected, since_driver_load));
    if (const auto bits = nvml.number<unsigned long long>("nvmlDeviceGetCurrentClocksThrottleReasons", gpu))
        state.slowed_by = reasons_of(*bits);
    return state;
}

}  // namespace

DriverReport driver_report(const std::string& library) {
    DriverReport report;
    const std::unique_ptr<void, int (*)(void*)> handle(dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL), dlclose);
    if (!handle) return report;
    const Nvml nvml(handle.get());
    if (!nvml.call("nvmlInit_v2")) {
        report.problem =
            fmt::format("{} does not answer: the driver's module is not loaded, or has another version", library);
        return report;
    }
    report.found = true;
    report.driver = nvml.text("nvmlSystemGetDriverVersion");
    report.cuda = nvml.number<int>("nvmlSystemGetCudaDriverVersion_v2").value_or(0);
    const unsigned count = nvml.number<unsigned>("nvmlDeviceGetCount_v2").value_or(0);
    for (unsigned i = 0; i < count; ++i)
        if (const auto gpu = nvml.number<Handle>("nvmlDeviceGetHandleByIndex_v2", i))
            report.gpus.push_back(state_of(nvml, *gpu));
    nvml.call("nvmlShutdown");
    return report;
}

}  // namespace colonnade
