// Driver and GPUs.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdlib>
#include <new>

#include "engine/device/arena.h"
#include "engine/device/device.h"
#include "engine/device/error.h"
#include "engine/device/gpu.h"
#include "engine/device/human_units.h"
#include "engine/device/timing.h"
#include "train/doctor/doctor.h"

namespace colonnade {
namespace {

Item driver_item(const DriverReport& driver, size_t usable) {
    Item item{.name = "driver", .found = "no NVIDIA driver: runs use the CPU"};
    if (!driver.problem.empty())
        return {.name = "driver",
                .found = driver.problem,
                .health = Health::bad,
                .remedy = "Load the module (modprobe nvidia), or restart the machine after an update of the driver."};
    if (!driver.found) return item;
    item.found = fmt::format("NVIDIA {}, for CUDA up to {}.{}, {} GPUs", driver.driver, driver.cuda / 1000,
                             driver.cuda / 10 % 100, driver.gpus.size());
    if (driver.gpus.empty() || usable > 0) return item;
    if (!built_with_cuda()) {
        item.health = Health::note;
        item.remedy = "This build has no CUDA, so that runs use the CPU: configure it again where nvcc is found.";
        return item;
    }
    item.health = Health::bad;
    item.remedy =
        fmt::format("The build has {} but sees no GPU: update the driver, or look at CUDA_VISIBLE_DEVICES (now '{}').",
                    cuda_libraries(), std::getenv("CUDA_VISIBLE_DEVICES") ? std::getenv("CUDA_VISIBLE_DEVICES") : "");
    return item;
}

Item device_item(size_t index, const CudaDevice& device) {
    Item item{.name = fmt::format("GPU {}", index),
              .found = fmt::format("{}, sm_{}, {}", device.name, device.compute_capability,
                                   human_bytes(device.memory_bytes))};
    if (device.compute_capability < 80) {
        item.health = Health::bad;
        item.remedy = "The kernels need sm_80 or newer: choose another GPU (device_index), or device: cpu.";
    }
    return item;
}

Item state_item(size_t index, const GpuState& state) {
    std::vector<std::string> found;
    if (state.clock_mhz && state.max_clock_mhz)
        found.push_back(fmt::format("{} of {} MHz", *state.clock_mhz, *state.max_clock_mhz));
    if (state.power_cap_watts && state.full_cap_watts)
        found.push_back(fmt::format("power cap {:.0f} of {:.0f} W", *state.power_cap_watts, *state.full_cap_watts));
    if (state.celsius) found.push_back(fmt::format("{} C", *state.celsius));
    if (state.ecc) found.push_back(*state.ecc ? "ECC on" : "ECC off");
    if (state.uncorrected_errors) found.push_back(fmt::format("{} uncorrected errors", *state.uncorrected_errors));
    if (!state.slowed_by.empty()) found.push_back(fmt::format("slowed by {}", fmt::join(state.slowed_by, ", ")));
    Item item{.name = fmt::format("GPU {} state", index), .found = fmt::format("{}", fmt::join(found, ", "))};
    if (found.empty()) item.found = "the driver reports nothing";
    if (state.uncorrected_errors.value_or(0) > 0) {
        item.health = Health::bad;
        item.remedy = "Its memory has lost bits: restart the machine, and replace the GPU if the count rises again.";
    } else if (!state.slowed_by.empty()) {
        item.health = Health::note;
        item.remedy = "The clock is held back: look at cooling and power (nvidia-smi -q -d PERFORMANCE).";
    } else if (state.power_cap_watts && state.full_cap_watts && *state.power_cap_watts < 0.95 * *state.full_cap_watts) {
        item.health = Health::note;
        item.remedy = fmt::format("The power cap is below the usual one: nvidia-smi -i {} -pl {:.0f}", index,
                                  *state.full_cap_watts);
    }
    return item;
}

/// Pins host memory and copies device memory to it, as a checkpoint in the background does.
Item pinned_item(size_t index) {
    constexpr size_t bytes = size_t{256} << 20;
    Item item{.name = fmt::format("GPU {} pinned", index)};
    try {
        Gpu gpu(static_cast<int>(index));
        const std::shared_ptr<void> memory = allocate_on_gpu(bytes);
        const Tensor source(memory.get(), DType::u8, {static_cast<int64_t>(bytes)}, Device::cuda);
        auto start = std::chrono::steady_clock::now();
        Arena host = Arena::in_host_memory(&gpu, bytes);
        void* const place = host.tensor("copy", DType::u8, {static_cast<int64_t>(bytes)}).data;
        SideCopy copy(gpu);
        const double pinning = seconds_since(start);
        double best = 0;
        for (int run = 0; run < 3; ++run) {
            start = std::chrono::steady_clock::now();
            copy.begin({{place, source}});
            copy.wait();
            best = std::max(best, static_cast<double>(bytes) / seconds_since(start));
        }
        item.found =
            fmt::format("{} in {}, copied at {:.1f} GB/s", human_bytes(bytes), human_duration(pinning), best / 1e9);
        if (best < 3e9) {  // less than PCIe 3.0 with four lanes
            item.health = Health::note;
            item.remedy = "Slow for PCIe: look at the width of its link (nvidia-smi -q -d PCI).";
        }
    } catch (const Error& error) {
        item.found = error.what();
        item.health = Health::bad;
        item.remedy = error.exit() == Exit::config
                          ? "Install what is missing."
                          : "End other programs on this GPU (nvidia-smi lists them), or choose another one.";
    }
    return item;
}

}  // namespace

std::vector<Item> gpu_items(const DriverReport& driver) {
    const std::vector<CudaDevice> devices = cuda_devices();
    std::vector<Item> items = {driver_item(driver, devices.size())};
    for (size_t i = 0; i < devices.size(); ++i) {
        items.push_back(device_item(i, devices[i]));
        if (items.back().health == Health::good) items.push_back(pinned_item(i));
    }
    // In the driver's order, which CUDA_VISIBLE_DEVICES does not change.
    for (size_t i = 0; i < driver.gpus.size(); ++i) items.push_back(state_item(i, driver.gpus[i]));
    return items;
}

}  // namespace colonnade
