#include "engine/device/nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <thread>

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

using Library = std::unique_ptr<void, int (*)(void*)>;

Library open_library(const std::string& library) {
    return {dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL), dlclose};
}

/// "GPU-01020304-0506-0708-090a-0b0c0d0e0f10" for 16 bytes.
std::string uuid_text(const std::string& bytes) {
    std::string text = "GPU-";
    for (size_t i = 0; i < bytes.size(); ++i)
        text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                            static_cast<unsigned char>(bytes[i]));
    return text;
}

}  // namespace

DriverReport driver_report(const std::string& library) {
    DriverReport report;
    const Library handle = open_library(library);
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

struct GpuMeter::State {
    using Clock = std::chrono::steady_clock;

    Library library;
    Nvml nvml{library.get()};
    Handle gpu = nullptr;
    Clock::time_point start = Clock::now();
    std::optional<uint64_t> energy_at_start{};
    double clocks = 0;  ///< sum of `readings`
    int64_t readings = 0;
    std::jthread reader{};  ///< ends before what it reads

    explicit State(Library handle) : library(std::move(handle)) {}
    std::optional<uint64_t> millijoules() const {
        return converted<uint64_t>(nvml.number<unsigned long long>("nvmlDeviceGetTotalEnergyConsumption", gpu));
    }
    void read_clock() {
        const auto mhz = nvml.number<unsigned>("nvmlDeviceGetClockInfo", gpu, multiprocessor_clock);
        if (!mhz) return;
        clocks += *mhz;
        ++readings;
    }
};

GpuMeter::GpuMeter(const std::string& uuid, const std::string& library) {
    Library handle = open_library(library);
    if (!handle) return;
    auto state = std::make_unique<State>(std::move(handle));
    if (!state->nvml.call("nvmlInit_v2")) return;
    const auto gpu = state->nvml.number<Handle>("nvmlDeviceGetHandleByUUID", uuid_text(uuid).c_str());
    if (!gpu) {
        state->nvml.call("nvmlShutdown");
        return;
    }
    state->gpu = *gpu;
    state->energy_at_start = state->millijoules();
    state->start = State::Clock::now();
    state->reader = std::jthread([s = state.get()](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            s->read_clock();
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    });
    state_ = std::move(state);
}

GpuMeter::~GpuMeter() {
    stop();
}

GpuMeter::Means GpuMeter::stop() {
    if (!state_) return {};
    State& s = *state_;
    s.reader.request_stop();
    s.reader.join();
    Means means;
    const double seconds = std::chrono::duration<double>(State::Clock::now() - s.start).count();
    const auto energy = s.millijoules();
    if (energy && s.energy_at_start && seconds >= 0.5)
        means.watts = 1e-3 * static_cast<double>(*energy - *s.energy_at_start) / seconds;
    if (s.readings > 0) means.clock_mhz = s.clocks / static_cast<double>(s.readings);
    s.nvml.call("nvmlShutdown");
    state_.reset();
    return means;
}

}  // namespace colonnade
