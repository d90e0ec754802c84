#include "train/run/machine.h"

#include <omp.h>

#include <fstream>
#include <thread>

#include "engine/device/blas_memory.h"
#include "engine/device/device.h"
#include "engine/device/gemm.h"
#include "engine/device/human_units.h"
#include "engine/device/version.h"
#include "layers/fp8_product.h"

namespace colonnade {
namespace {

/// One thread per core that this rank may use; ranks of one machine divide its cores.
int default_threads(const Ranks& ranks) {
    const int allowed = omp_get_num_procs(), cores = static_cast<int>(std::thread::hardware_concurrency());
    return ranks.several() ? std::max(1, std::min(allowed, cores / ranks.local_size())) : allowed;
}

/// Gives every rank a GPU of its own, by local rank. A launcher may also show each rank only one GPU.
void choose_gpu(Config& config, const std::vector<CudaDevice>& devices, const Ranks& ranks) {
    if (!ranks.several()) return;
    if (config.device_index != 0)
        fail(Exit::config,
             "device_index {} is for a single rank: of several ranks, each takes the GPU of its local rank",
             config.device_index);
    const auto count = static_cast<int>(devices.size());
    config.device_index = count > 0 ? ranks.local_rank() % count : 0;
}

bool usable_gpu(const std::vector<CudaDevice>& devices, int64_t index) {
    const auto at = static_cast<size_t>(index);
    return built_with_cuda() && at < devices.size() && devices[at].compute_capability >= 80;
}

/// The device of the config; for auto, the GPU at device_index if it is usable.
Device choose_device(const Config& config, const std::vector<CudaDevice>& devices, SessionUse use) {
    const auto index = static_cast<size_t>(config.device_index);
    const bool usable = usable_gpu(devices, config.device_index);
    if (config.device == DeviceChoice::cuda && use == SessionUse::plan) return Device::cuda;
    if (config.device == DeviceChoice::cpu || (config.device == DeviceChoice::automatic && !usable)) return Device::cpu;
    if (!built_with_cuda())
        fail(Exit::config,
             "device: cuda, but this build has no CUDA (nvcc was not found when it was configured); use device: cpu");
    if (devices.empty())
        fail(Exit::config, "device: cuda, but this machine has no usable CUDA device; use device: cpu");
    if (index >= devices.size())
        fail(Exit::config, "device_index {}, but this machine has {} CUDA devices", index, devices.size());
    if (!usable)
        fail(Exit::config, "device: cuda, but device {} ({}) is an sm_{}: the kernels need sm_80 or newer", index,
             devices[index].name, devices[index].compute_capability);
    if (const std::string why = why_no_fp8_products(devices[index].compute_capability);
        config.compute == Compute::fp8 && !why.empty())
        fail(Exit::config, "compute: fp8: {}; use compute: bf16", why);
    return Device::cuda;
}

/// "AMD EPYC 9654 96-Core Processor"; empty if the kernel does not tell.
std::string processor_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        const size_t colon = line.find(": ");
        if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
    }
    return "";
}

/// What the clones of engine/device/wide_vectors.h run as.
const char* instruction_set() {
#if defined(__AVX512F__)
    return "AVX-512";
#elif defined(__x86_64__)
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
    return wide ? "AVX-512" : "AVX2";
#else
    return "as compiled";
#endif
}

}  // namespace

Facts facts_of_machine(Device device, int64_t index) {
    Facts facts = {{"program", COLONNADE_VERSION}};
    if (device == Device::cuda)
        facts.insert(facts.end(),
                     {{"device", cuda_devices().at(static_cast<size_t>(index)).name}, {"libraries", cuda_libraries()}});
    else
        facts.insert(facts.end(), {{"device", "CPU"},
                                   {"processor", processor_name()},
                                   {"instructions", instruction_set()},
                                   {"OpenBLAS", blas_kernels()}});
    return facts;
}

std::string differences(const Facts& then, const Facts& now) {
    std::string text;
    for (const auto& [name, before] : then)
        for (const auto& [other, after] : now)
            if (name == other && before != after)
                text += fmt::format("{}{}: {}, now {}", text.empty() ? "" : "; ", name, before, after);
    return text;
}

void require_gpu_each(const std::vector<CudaDevice>& devices, int64_t own, const Ranks& ranks) {
    if (!ranks.several()) return;
    const std::vector<std::string> all = ranks.gather("GPUs", devices[static_cast<size_t>(own)].uuid);
    for (int r = 0; r < ranks.size(); ++r)
        for (int other = 0; other < r; ++other)
            if (all[static_cast<size_t>(r)] == all[static_cast<size_t>(other)])
                fail(Exit::config,
                     "{} and {} would share a GPU: start no more ranks on a machine than it has GPUs ({} here), or set "
                     "device: cpu",
                     ranks.name(other), ranks.name(r), devices.size());
}

bool has_gpu(int64_t index) {
    return usable_gpu(cuda_devices(), index);
}

Device settle_machine(Config& config, const Ranks& ranks, SessionUse use) {
    const int threads = config.threads ? static_cast<int>(config.threads) : default_threads(ranks);
    omp_set_num_threads(threads);
    const std::vector<CudaDevice> devices = cuda_devices();
    if (config.device != DeviceChoice::cpu) choose_gpu(config, devices, ranks);
    const Device device = choose_device(config, devices, use);
    require_same(ranks, {{"the device", name_of(device)}});
    if (device == Device::cuda && config.offload_weights.count > 0 && ranks.several())
        fail(Exit::config,
             "offload_weights is for one rank, and these are {}: zero_stage: 1 shards the optimizer's state over them, "
             "and "
             "offload_optimizer moves it to host memory",
             ranks.size());
    if (device == Device::cpu) reserve_blas_memory();
    if (device == Device::cuda && use == SessionUse::run) require_gpu_each(devices, config.device_index, ranks);
    settle_device(config, device);
    return device;
}

std::string device_name(Device device, int64_t index) {
    if (device == Device::cuda) return cuda_devices().at(static_cast<size_t>(index)).name;
    const std::string name = processor_name();
    return name.empty() ? "CPU" : name;
}

std::string device_text(Device device, int64_t index) {
    if (device == Device::cpu) return "CPU";
    if (!has_gpu(index)) return "GPU (none here)";
    const CudaDevice gpu = cuda_devices().at(static_cast<size_t>(index));
    return fmt::format("GPU ({}, {})", gpu.name, human_bytes(gpu.memory_bytes));
}

}  // namespace colonnade
