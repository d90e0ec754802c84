// param_checksum_steps finds a bit that flips in the weights of one rank. This program, planted_weight_bit_test, has
// the fault weight_bit (engine/device/planted_bug.h), which the linker takes in place of the sound source.

#include "engine/device/planted_bug.h"
#include "tests/support/rank_runs.h"

namespace colonnade {
namespace {

constexpr int64_t flipped_step = 5;  ///< of rank 1
constexpr const char* arguments_variable = "COLONNADE_FLIPPED_BIT";

/// What `train` does, with the fault. The variable has its arguments, one a line.
TEST(DISABLED_EveryRank, TrainsWithAFlippedBit) {
    static_assert(planted_bug == PlantedBug::weight_bit);
    std::vector<std::string> arguments;
    std::istringstream lines(std::getenv(arguments_variable));
    for (std::string line; std::getline(lines, line);) arguments.push_back(line);
    const std::string config = arguments.at(0);
    arguments.erase(arguments.begin());
    Ranks ranks({.program = "train"});
    std::exit(ranks.guard([&] {
        Trainer(open_session(load_config(config, arguments), ranks), ranks).run();
        return 0;
    }));
}

class FlippedBit : public RanksTest {
  protected:
    void SetUp() override {
        RanksTest::SetUp();
        if (IsSkipped()) return;
        write_config(
            "logging_steps: 1\nlearning_rate: 1e-3\nmax_steps: 12\nsave_steps: 2\nsave_total_limit: 0\n"
            "async_save: false\n");
    }
    Program::Result train_with_fault(const std::string& name, const std::vector<std::string>& settings) const {
        const std::vector<std::string> arguments = train_arguments(name, settings);
        setenv(arguments_variable, fmt::format("{}", fmt::join(arguments, "\n")).c_str(), 1);
        return run_on_ranks(ranks(), "DISABLED_EveryRank.TrainsWithAFlippedBit");
    }
    /// Compares the weights every `steps`, and finds the fault after `step`.
    void expect_found(int64_t zero_stage, int64_t steps, int64_t step) const {
        const std::string name = fmt::format("found, zero_stage {}", zero_stage);
        SCOPED_TRACE(name);
        const std::vector<std::string> settings = {fmt::format("zero_stage={}", zero_stage),
                                                   fmt::format("param_checksum_steps={}", steps)};
        const Program::Result found = train_with_fault(name, settings);
        EXPECT_EQ(found.exit, static_cast<int>(Exit::numerics)) << found.err;
        EXPECT_EQ(count_of(found.err, "error: "), 1) << found.err;
        for (const std::string& part :
             {fmt::format("train: error: after step {} the weights of rank 1 of {} on ", step, ranks()),
              fmt::format(" differ from those of the others; after step {0} they agreed. Memory or a transfer is at "
                          "fault: resume from a checkpoint of step {0} or before",
                          step - steps)})
            EXPECT_NE(found.err.find(part), std::string::npos) << found.err << "\n  lacks: " << part;
        EXPECT_EQ(checkpoint_steps(path(name)).back(), flipped_step - 1) << "the fault was saved";
        // On a sound machine the run continues, with the bits of one that had no fault.
        train_ranks(ranks(), name, {settings[0], settings[1], "resume_from_checkpoint=auto"});
        expect_same(name, "sound");
    }
};
using FlippedBitOnDevice = OnDevice<FlippedBit>;
INSTANTIATE_TEST_SUITE_P(Devices, FlippedBitOnDevice, every_device(), name_of_device);

TEST_P(FlippedBitOnDevice, IsFoundAndNamed) {
    train_ranks(ranks(), "sound", {});
    // Nothing else sees it: the loss is an ordinary one.
    const Program::Result unnoticed = train_with_fault("unnoticed", {"param_checksum_steps=0"});
    EXPECT_EQ(unnoticed.exit, 0) << unnoticed.err;
    EXPECT_FALSE(result("unnoticed").state == result("sound").state);
    expect_found(0, 2, flipped_step + 1);
    // Here the next update sends all weights anew.
    expect_found(1, 1, flipped_step);
}

}  // namespace
}  // namespace colonnade
