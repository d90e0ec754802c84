// Whole runs on a GPU: a thousand steps give the same bits in every process and after a kill.

#include "tests/support/gpu_run.h"

namespace colonnade {
namespace {

class GpuRun : public GpuRunTest, public testing::WithParamInterface<Heads> {};

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

}  // namespace
}  // namespace colonnade
