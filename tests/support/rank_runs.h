#pragma once
// Training runs on several ranks: on CPU processes, and on two GPUs.

#include "engine/ranks/communicator.h"
#include "tests/support/device_case.h"
#include "tests/support/mpirun.h"
#include "tests/support/tiny_run.h"

namespace colonnade {

/// Runs of a tiny model on several CPU processes; skipped without mpirun.
class RanksTest : public RunTest {
  protected:
    void SetUp() override {
        if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
        if (on_gpus() && (cuda_devices().size() < 2 || !built_with_nccl()))
            GTEST_SKIP() << "fewer than two GPUs, or a build without NCCL";
        show_gpus(on_gpus());
        if (on_gpus()) {
            learning_rate_ = "3e-3";
            shape_ =  // heads that the kernels take
                "  hidden_size: 128\n  intermediate_size: 256\n  num_hidden_layers: 2\n  num_attention_heads: 2\n"
                "  num_key_value_heads: 1\n  head_dim: 64\n";
        }
        RunTest::SetUp();
        write_config("logging_steps: 1\nmax_steps: 8\nval_size: 16\neval_steps: 4\nlearning_rate: " + learning_rate_ +
                     "\n");
    }
    virtual bool on_gpus() const { return false; }
    /// The ranks of a test that needs no certain number.
    int ranks() const { return on_gpus() ? 2 : 3; }
    int last_rank() const { return ranks() - 1; }

    /// Arguments of `train`.
    std::vector<std::string> train_arguments(const std::string& name, std::vector<std::string> settings) const {
        settings.insert(settings.begin(), {config(), output(name), on_gpus() ? "device=cuda" : "device=cpu"});
        if (on_gpus()) settings.push_back("deterministic=true");
        return settings;
    }
    std::vector<std::string> train_on(int ranks, const std::string& name,
                                      const std::vector<std::string>& settings) const {
        return on_ranks(ranks, "train", train_arguments(name, settings));
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

    /// How far apart a measured number may be on different numbers of ranks, which sum the same packs in another order.
    /// All sums are in f32, so that on CPUs, and in the first step on GPUs, numbers differ by roundings of f32.
    ///
    /// Later on GPUs: a weight that moved by 1e-6 of an update more is rounded to the other of two bf16 numbers now and
    /// then, activations and gradients pass that on from rounding to rounding, and a gradient near 0 whose sign changes
    /// turns one of AdamW's first updates round. In a simulation of this model in bf16 in which nothing but the order of
    /// the f32 sums differs, eight steps at 3e-3 move losses by up to 7e-4 and gradient norms by up to 5e-3 of
    /// themselves. An accuracy counts: one answer of a dozen may change sides.
    double tolerance(const std::string& key, double value, int64_t step) const {
        if (!on_gpus()) return 2e-6 * std::abs(value);
        if (step <= 1) return 1e-5 * std::abs(value) + 1e-6;
        return 0.02 * std::abs(value) + (key.find("accurac") != key.npos ? 0.1 : 0.02);
    }
    /// Compares counts exactly and measured numbers up to rounding. `absolute` is for differences of larger numbers,
    /// such as rewards.
    void expect_close(const std::string& name, const std::string& other, double absolute = 0) const {
        const std::vector<Json> a = result(name).log, b = result(other).log;
        ASSERT_EQ(a.size(), b.size());
        ASSERT_GT(a.size(), 0u);
        double first = 0, largest = 0;
        for (size_t i = 0; i < a.size(); ++i) {
            const int64_t step = a[i].at("step");
            for (const auto& [key, value] : a[i].items()) {
                ASSERT_TRUE(b[i].contains(key)) << key;
                if (!value.is_number_float()) {
                    EXPECT_EQ(b[i][key], value) << key << ", line " << i;
                    continue;
                }
                const double x = value, y = b[i][key];
                EXPECT_NEAR(y, x, tolerance(key, x, step) + absolute) << key << ", line " << i;
                double& most = step <= 1 ? first : largest;
                most = std::max(most, std::abs(y - x) / std::max(std::abs(x), 0.1));
            }
        }
        if (on_gpus())
            fmt::print("{} beside {}: numbers differ by at most {:.1e} in the first step, {:.1e} later\n", name, other,
                       first, largest);
    }
};

/// The same on CPU processes and on two GPUs: the parameter is the device.
template <typename Fixture>
class OnDevice : public Fixture, public testing::WithParamInterface<Device> {
  protected:
    bool on_gpus() const override { return GetParam() == Device::cuda; }
};

}  // namespace colonnade
