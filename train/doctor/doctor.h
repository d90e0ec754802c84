#pragma once
// doctor: what this machine offers to a run, item by item, with a verdict and, if something is wrong, one remedy.

#include <string>
#include <vector>

#include "engine/device/nvml.h"
#include "engine/io/json.h"

namespace colonnade {

enum class Health {
    good,
    note,  ///< works, but a run may be slow or lack something
    bad    ///< something does not work as it should
};

struct Item {
    std::string name, found{};
    Health health = Health::good;
    std::string remedy{};  ///< empty if good
};

struct DoctorOptions {
    std::string folder = ".";       ///< whose disk is measured
    size_t disk_bytes = 256 << 20;  ///< written and read there
    DriverReport driver{};          ///< driver_report()
};

/// All items. Writes and removes a file in the folder; uses every GPU for a moment.
std::vector<Item> examine(const DoctorOptions& options);

// The parts of it.
std::vector<Item> machine_items();                        ///< CPU, memory, limits of the process
std::vector<Item> gpu_items(const DriverReport& driver);  ///< driver, GPUs, memory that is pinned for them
std::vector<Item> library_items(size_t gpus);             ///< cuBLASLt, NCCL, MPI and others
std::vector<Item> storage_items(const DoctorOptions& options);
std::vector<Item> hub_items();  ///< cache and token

/// "CPU   AMD EPYC 9654, 2 cores   ok", and the remedy below it.
std::string text_of(const std::vector<Item>& items);
Json json_of(const std::vector<Item>& items);
bool all_work(const std::vector<Item>& items);  ///< none is bad

}  // namespace colonnade
