#pragma once
// The free memory of all GPUs before and after processes that used them.

#include "engine/device/gpu.h"
#include "tests/support/mpirun.h"

namespace colonnade {

/// A process of its own, because whoever looks holds a context on each GPU until it ends.
TEST(DISABLED_EveryGpu, PrintsItsFreeMemory) {
    for (int i = 0; i < std::ssize(cuda_devices()); ++i) {
        const Gpu gpu(i);
        fmt::print("free {}\n", available_gpu_memory());
    }
}

/// Bytes, by GPU.
inline std::vector<size_t> free_gpu_memory() {
    const Program::Result result = run(this_program(), arguments_for("DISABLED_EveryGpu.PrintsItsFreeMemory"));
    EXPECT_EQ(result.exit, 0) << result.out << result.err;
    std::vector<size_t> bytes;
    std::istringstream lines(result.out);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with("free ")) bytes.push_back(std::stoull(line.substr(5)));
    EXPECT_EQ(bytes.size(), cuda_devices().size()) << result.out;
    return bytes;
}

/// Expects that nothing holds more memory of a GPU than in the beginning. A process that is left behind holds a context,
/// which takes hundreds of megabytes; the slack is for what the driver keeps, which may take seconds to free the rest.
inline void expect_free_gpu_memory(const std::vector<size_t>& beginning) {
    constexpr size_t slack = size_t{64} << 20;
    std::vector<size_t> now = free_gpu_memory();
    ASSERT_EQ(now.size(), beginning.size());
    const auto is_free = [&](size_t gpu) { return now[gpu] + slack >= beginning[gpu]; };
    for (size_t i = 0; i < beginning.size(); ++i) {
        for (int look = 0; look < 3 && !is_free(i); ++look) {
            sleep(2);
            now = free_gpu_memory();
            ASSERT_EQ(now.size(), beginning.size());
        }
        fmt::print("GPU {}: {} MiB free, {} MiB in the beginning\n", i, now[i] >> 20, beginning[i] >> 20);
        EXPECT_TRUE(is_free(i)) << "GPU " << i;
    }
}

}  // namespace colonnade
