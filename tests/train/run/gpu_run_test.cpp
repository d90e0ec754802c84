// Whole runs on a GPU: a thousand steps give the same bits in every process and after a kill; memory that does not
// suffice is an error with the way out, and a run that has started needs no more of it.

#include <regex>

#include "engine/device/gpu.h"
#include "tests/support/test_gpu.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

struct Heads {
    int64_t heads, kv_heads, head_dim;
};

class GpuRun : public RunTest, public testing::WithParamInterface<Heads> {
  protected:
    void SetUp() override {
        if (cuda_devices().empty()) GTEST_SKIP() << "no GPU";
        RunTest::SetUp();
        spill(path("train.jsonl"), chain_rows(2000));
    }
    /// `packing_length` in tokens. Four layers with heads that the kernels of every GPU take.
    void write_gpu_config(const Heads& shape, int64_t hidden, const std::string& settings) const {
        spill(path("config.yaml"),
              fmt::format("model:\n  hidden_size: {}\n  intermediate_size: {}\n  num_hidden_layers: 4\n"
                          "  num_attention_heads: {}\n  num_key_value_heads: {}\n  head_dim: {}\n  vocab_size: {}\n"
                          "datasets:\n  - path: {}\nmax_length: 48\nprepared_path: {}\nthreads: 1\n"
                          "report_to: [jsonl]\ndevice: cuda\ndeterministic: true\n{}",
                          hidden, 2 * hidden, shape.heads, shape.kv_heads, shape.head_dim, chain_vocab,
                          path("train.jsonl"), path("prepared"), settings));
    }
};

TEST_P(GpuRun, AThousandStepsGiveTheSameBits) {
    write_gpu_config(GetParam(), 256,
                     "packing_length: 512\nper_device_train_batch_size: 2\nmax_steps: 1000\nlearning_rate: 0.003\n"
                     "save_steps: 250\nsave_total_limit: 0\nval_size: 50\neval_steps: 200\nlogging_steps: 7\n");
    for (const char* name : {"first", "second"}) {
        const Program::Result result = run("train", {config(), output(name)});
        ASSERT_EQ(result.exit, 0) << result.err;
    }
    const RunResult first = result_of(path("first"));
    ASSERT_FALSE(first.model.empty());
    EXPECT_EQ(checkpoint_steps(path("first")).back(), 1000);
    EXPECT_TRUE(result_of(path("second")) == first) << "a second process gave other bits";

    for (const int64_t step : {250, 750}) {
        const std::string name = fmt::format("killed-{}", step);
        Program killed("train", {config(), output(name)});
        ASSERT_TRUE(killed.read_until(fmt::format("saved {}", path(name + fmt::format("/checkpoint-{}", step)))));
        killed.send(SIGKILL);
        EXPECT_EQ(killed.wait().exit, 128 + SIGKILL);
        const Program::Result result = run("train", {config(), output(name), "resume_from_checkpoint=auto"});
        ASSERT_EQ(result.exit, 0) << result.err;
        EXPECT_NE(result.out.find("resumed from "), std::string::npos) << result.out;
        EXPECT_TRUE(result_of(path(name)) == first) << "killed after step " << step << ": other bits";
    }
    // The comparison sees a difference in one step.
    const Program::Result other = run("train", {config(), output("other"), "seed=2"});
    ASSERT_EQ(other.exit, 0) << other.err;
    EXPECT_FALSE(result_of(path("other")) == first);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuRun,
                         testing::Values(Heads{2, 2, 128}, Heads{4, 4, 64}, Heads{8, 2, 64}, Heads{4, 1, 128}),
                         [](const auto& shape) {
                             return fmt::format("{}to{}heads_of_{}", shape.param.heads, shape.param.kv_heads,
                                                shape.param.head_dim);
                         });

/// GPU memory that the test takes away from the runs of other processes.
class Memory : public GpuRun {
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

TEST_F(Memory, ThatIsShortNamesTheSettingsThatFit) {
    write_gpu_config({8, 4, 128}, 1024,
                     "packing_length: 4096\nper_device_train_batch_size: 16\nmax_steps: 2\nval_size: 50\n");
    (void)test_gpu();
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

TEST_F(Memory, ThatOthersTakeLaterDoesNotMatter) {
    write_gpu_config({4, 2, 64}, 256,
                     "packing_length: 512\nmax_steps: 400\nlogging_steps: 1\nval_size: 50\neval_steps: 200\n"
                     "save_steps: 300\n");
    const Program::Result alone = run("train", {config(), output("alone")});
    ASSERT_EQ(alone.exit, 0) << alone.err;
    Program crowded("train", {config(), output("crowded")});
    ASSERT_TRUE(crowded.read_until("step 20/"));
    (void)test_gpu();
    take_all();
    const Program::Result result = crowded.wait();
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_TRUE(result_of(path("crowded")) == result_of(path("alone")));
}

}  // namespace
}  // namespace colonnade
