// Runs on a GPU that lacks memory: an error with the way out, and a run that has started needs no more of it. These
// tests take all memory of the GPU, so ctest runs nothing beside them.

#include <regex>

#include "engine/device/gpu.h"
#include "tests/support/gpu_run.h"

namespace colonnade {
namespace {

/// GPU memory that the test takes away from the runs of other processes.
class GpuMemory : public GpuRunTest {
  protected:
    void take(size_t bytes) { taken_.push_back(allocate_on_gpu(bytes)); }
    /// Takes all that the device gives, down to pieces of 1 MiB.
    void take_all() {
        for (size_t bytes = size_t{1} << 36; bytes >= size_t{1} << 20; bytes /= 2) try {
                while (true) take(bytes);
            } catch (const Error& e) {
                ASSERT_EQ(e.exit(), Exit::memory) << e.what();
            }
    }
    std::vector<std::shared_ptr<void>> taken_;
};

TEST_F(GpuMemory, ThatIsShortNamesTheSettingsThatFit) {
    write_gpu_config({8, 4, 128}, 1024,
                     "packing_length: 4096\nper_device_train_batch_size: 16\nmax_steps: 2\nval_size: 50\n");
    const Gpu gpu;
    take(available_gpu_memory() - (size_t{5} << 30));
    const Program::Result refused = run("train", {config(), output("refused")});
    EXPECT_EQ(refused.exit, static_cast<int>(Exit::memory)) << refused.err;
    EXPECT_NE(refused.err.find("not enough GPU memory: "), std::string::npos) << refused.err;
    std::smatch advice;
    ASSERT_TRUE(std::regex_search(refused.err, advice, std::regex("this fits: ([^(]*) \\("))) << refused.err;
    std::vector<std::string> arguments = {config(), output("fits")};
    std::istringstream settings(advice[1]);
    for (std::string setting; settings >> setting;) arguments.push_back(setting);
    const Program::Result fits = run("train", arguments);
    EXPECT_EQ(fits.exit, 0) << fits.err;
}

TEST_F(GpuMemory, ThatOthersTakeLaterDoesNotMatter) {
    write_gpu_config({4, 2, 64}, 256,
                     "packing_length: 512\nmax_steps: 400\nlogging_steps: 1\nval_size: 50\neval_steps: 200\n"
                     "save_steps: 300\n");
    const Program::Result alone = run("train", {config(), output("alone")});
    ASSERT_EQ(alone.exit, 0) << alone.err;
    Program crowded("train", {config(), output("crowded")});
    ASSERT_TRUE(crowded.read_until("step 20/"));
    const Gpu gpu;
    take_all();
    const Program::Result result = crowded.wait();
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_TRUE(result_of(path("crowded")) == result_of(path("alone")));
}

}  // namespace
}  // namespace colonnade
