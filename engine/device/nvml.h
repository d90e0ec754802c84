#pragma once
// What NVIDIA's driver says about the GPUs of this machine, by its library NVML, which is loaded at run time: a build
// without CUDA can ask it too. Functions and numbers are those of NVML's reference manual (docs.nvidia.com/deploy/nvml-api).

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace colonnade {

/// The state of a GPU now. A value that the driver does not report is missing.
struct GpuState {
    std::string name;
    std::optional<int> clock_mhz{}, max_clock_mhz{};            ///< of the multiprocessors
    std::optional<double> power_cap_watts{}, full_cap_watts{};  ///< the cap in force, and the one of the factory
    std::optional<int> celsius{};
    std::optional<bool> ecc{};                     ///< error correction of memory is on
    std::optional<uint64_t> uncorrected_errors{};  ///< of memory, since the driver was loaded
    std::vector<std::string> slowed_by{};          ///< "heat", "power brake": what holds the clock back
};

struct DriverReport {
    bool found = false;     ///< NVML was loaded and answers
    std::string problem{};  ///< why not; empty if there is no such library
    std::string driver{};   ///< "580.65.06"
    int cuda = 0;           ///< newest CUDA that the driver runs: 13000 is 13.0
    std::vector<GpuState> gpus{};
};

/// Loads `library` and asks it. Never throws for what the driver says.
DriverReport driver_report(const std::string& library = "libnvidia-ml.so.1");

/// What a GPU draws, and how fast it runs, while it works: means from construction to stop().
class GpuMeter {
  public:
    struct Means {
        std::optional<double> watts{};      ///< by the GPU's counter of energy; not for less than half a second
        std::optional<double> clock_mhz{};  ///< of the multiprocessors, read every 20 ms
    };

    /// `uuid`: CudaDevice::uuid. Without NVML, or if it does not know the GPU, the means are missing.
    explicit GpuMeter(const std::string& uuid, const std::string& library = "libnvidia-ml.so.1");
    ~GpuMeter();
    GpuMeter(const GpuMeter&) = delete;
    GpuMeter& operator=(const GpuMeter&) = delete;
    Means stop();

  private:
    struct State;
    std::unique_ptr<State> state_;  ///< null: nothing to read
};

}  // namespace colonnade
