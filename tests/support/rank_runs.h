#pragma once
// Training runs on several ranks.

#include "tests/support/mpirun.h"
#include "tests/support/tiny_run.h"

namespace colonnade {

/// Runs of a tiny model on several ranks; skipped without mpirun.
class RanksTest : public RunTest {
  protected:
    void SetUp() override {
        if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
        hide_scarce_gpus(4);
        RunTest::SetUp();
        write_config("logging_steps: 1\nlearning_rate: 1e-2\nmax_steps: 8\nval_size: 16\neval_steps: 4\n");
    }
    std::vector<std::string> train_on(int ranks, const std::string& name, std::vector<std::string> settings) const {
        settings.insert(settings.begin(), {config(), output(name)});
        return on_ranks(ranks, "train", settings);
    }
    Program::Result train_ranks(int ranks, const std::string& name, const std::vector<std::string>& settings,
                                Exit exit = Exit::ok) const {
        const Program::Result result = Program(mpirun(), train_on(ranks, name, settings), allow_ranks).wait();
        EXPECT_EQ(result.exit, static_cast<int>(exit)) << result.err;
        EXPECT_EQ(count_of(result.err, "error: "), exit == Exit::ok ? 0 : 1) << result.err;
        return result;
    }
    RunResult result(const std::string& name) const { return result_of(path(name)); }
    /// Compares bits.
    void expect_same(const std::string& name, const std::string& other) const {
        const RunResult a = result(name), b = result(other);
        EXPECT_FALSE(a.state.empty());
        EXPECT_TRUE(a.state == b.state) << name << " and " << other;
        EXPECT_TRUE(a.model == b.model) << name << " and " << other;
        EXPECT_EQ(a.log, b.log);
    }
    /// Compares counts exactly and measured numbers up to rounding, because the order of sums in f32 differs.
    /// `absolute` is for differences of larger numbers, such as rewards.
    void expect_close(const std::string& name, const std::string& other, double absolute = 0) const {
        const std::vector<Json> a = result(name).log, b = result(other).log;
        ASSERT_EQ(a.size(), b.size());
        ASSERT_GT(a.size(), 0u);
        for (size_t i = 0; i < a.size(); ++i)
            for (const auto& [key, value] : a[i].items()) {
                ASSERT_TRUE(b[i].contains(key)) << key;
                if (value.is_number_float()) {
                    const double x = value.get<double>();
                    EXPECT_NEAR(b[i][key].get<double>(), x, 2e-6 * std::abs(x) + absolute) << key << ", line " << i;
                } else {
                    EXPECT_EQ(b[i][key], value) << key << ", line " << i;
                }
            }
    }
};

}  // namespace colonnade
