#include "train/run/gpu_rates.h"

namespace colonnade {

GpuRates gpu_rates(std::string_view device_name) {
    const auto has = [&](const char* part) { return device_name.find(part) != std::string_view::npos; };
    constexpr double pcie5 = 53e9, pcie4 = pcie5 / 2;
    // Slices of a device, and cards with fewer units or less power, have other peaks.
    if (has("MIG") || has("NVL") || (has("H100") && has("PCIe"))) return {};
    if (has("GH200 480GB"))
        return {.bf16 = 989.5e12, .memory = 4.0e12, .bus = pcie5};  // its faster bus is not measured
    if (has("H200")) return {.bf16 = 989.5e12, .memory = 4.8e12, .bus = pcie5};
    if (has("H100")) return {.bf16 = 989.5e12, .memory = 3.35e12, .bus = pcie5};
    if (has("A100")) return {.bf16 = 312e12, .memory = has("80GB") ? 2.04e12 : 1.555e12, .bus = pcie4};
    return {};
}

}  // namespace colonnade
