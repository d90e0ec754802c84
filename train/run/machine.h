#pragma once
// The machine of a run: CPU threads and the device.

#include <string>

#include "engine/device/device.h"
#include "engine/ranks/ranks.h"
#include "train/config/config.h"
#include "train/run/rank_check.h"

namespace colonnade {

/// What a session is for: to compute, or to plan and prepare, which needs no device.
enum class SessionUse { run, plan };

/// Sets the number of threads, chooses the device (a GPU if device is auto and one is usable) and settles the keys that
/// depend on it. Ranks of one machine share its cores and take a GPU each. Throws Exit::config if the machine has no
/// such device, or if a key asks for something that the device cannot do. For a plan `device: cuda` needs no GPU.
Device settle_machine(Config& config, const Ranks& ranks = one_rank(), SessionUse use = SessionUse::run);
/// Whether this machine has the GPU at `index`, and the build kernels for it.
bool has_gpu(int64_t index);

/// Throws Exit::config on all ranks if two of them have the same GPU. `own`: this rank's among `devices`.
void require_gpu_each(const std::vector<CudaDevice>& devices, int64_t own, const Ranks& ranks);
/// What the last bits of a run's results may depend on beside its config: the program's version; on the CPU processor,
/// instruction set and kernels of OpenBLAS; on a GPU its name and the versions of CUDA and cuBLASLt.
Facts facts_of_machine(Device device, int64_t index);
/// "OpenBLAS: 0.3.21 Haswell, now 0.3.21 Zen; ..." for facts that both have with different values; empty if none.
std::string differences(const Facts& then, const Facts& now);

/// "NVIDIA H200", or the processor's name.
std::string device_name(Device device, int64_t index);
/// "CPU", "GPU (NVIDIA H200, 139.8 GiB)", or "GPU (none here)". `index` counts GPUs.
std::string device_text(Device device, int64_t index);

}  // namespace colonnade
