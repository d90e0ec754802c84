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
        if (on_gpus())  // heads that its kernels take
            shape_ =
                "  hidden_size: 128\n  intermediate_size: 256\n  num_hidden_layers: 2\n  num_attention_heads: 2\n"
                "  num_key_value_heads: 1\n  head_dim: 64\n";
        RunTest::SetUp();
        write_config("logging_steps: 1\nlearning_rate: 1e-2\nmax_steps: 8\nval_size: 16\neval_steps: 4\n");
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

    /// How far measured numbers of the same packs may be apart on different numbers of ranks.
    struct Tolerance {
        double relative, absolute;
    };
    /// The order of sums in f32 differs. On GPUs that alone explains the first step, which has the same weights to the
    /// bit. It moves a weight by about 1e-6 of an update, so that the next step rounds one in some thousand weights to
    /// the other of two neighbouring bf16 numbers, 2^-8 of the weight apart. Activations pass that on from rounding to
    /// rounding, up to about 2^-9 of each. Gradients then differ by some 1e-3, and AdamW's first updates, which are of
    /// the same size for every weight, differ by twice their size if the sign of a tiny gradient changes.
    Tolerance tolerance(int64_t step) const {
        if (!on_gpus()) return {2e-6, 0};
        return step <= 1 ? Tolerance{1e-5, 1e-6} : Tolerance{0.02, 0.02};
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
            const Tolerance bound = tolerance(step);
            for (const auto& [key, value] : a[i].items()) {
                ASSERT_TRUE(b[i].contains(key)) << key;
                if (!value.is_number_float()) {
                    EXPECT_EQ(b[i][key], value) << key << ", line " << i;
                    continue;
                }
                const double x = value, y = b[i][key];
                EXPECT_NEAR(y, x, bound.relative * std::abs(x) + bound.absolute + absolute) << key << ", line " << i;
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
