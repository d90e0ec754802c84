// Explaining a step: the numbers of the log to the bit, from a checkpoint and from the beginning, and a planted row that
// stands out.

#include "train/run/explain_step.h"

#include "tests/support/expect_error.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

class ExplainStep : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        // All rows follow the chain but for one.
        const std::string rows = chain_rows(160);
        const std::string planted =
            R"({"input_ids": [1, 10, 3, 3, 3, 3, 3, 3, 3, 3], "labels": [-100, -100, 3, 3, 3, 3, 3, 3, 3, 3]})";
        spill(path("train.jsonl"), rows + planted + "\n");
        write_config(
            "per_device_train_batch_size: 1\ngradient_accumulation_steps: 2\nnum_train_epochs: 4\nlearning_rate: 0.01\n"
            "warmup_steps: 2\nlogging_steps: 1\nsave_steps: 5\nsave_total_limit: 0\n");
    }
    ExplainedStep explain(int64_t step) const {
        ExplainedStep explained;
        quietly([&] { explained = explain_step(path("run"), step); });
        return explained;
    }
};

TEST_F(ExplainStep, GivesTheNumbersOfTheLogToTheBit) {
    train(config(), {output("run"), "max_steps=14"});
    const std::vector<Json> log = read_log(path("run"));
    for (const auto& [step, begun] : {std::pair(3, 0), std::pair(6, 5), std::pair(10, 5), std::pair(14, 10)}) {
        const ExplainedStep e = explain(step);
        EXPECT_EQ(e.begun_at, begun);
        EXPECT_EQ(e.loss, value_at(log, "loss", step));
        EXPECT_EQ(e.gradient_norm, value_at(log, "grad_norm", step));
        EXPECT_EQ(e.logged_loss, e.loss);
        EXPECT_EQ(e.logged_gradient_norm, e.gradient_norm);
        double share = 0;
        for (const SampleShare& sample : e.samples) share += sample.share;
        EXPECT_NEAR(share, 1, 1e-5);
        EXPECT_TRUE(std::ranges::is_sorted(e.samples, std::greater<>(), &SampleShare::gradient_norm));
    }
}

TEST_F(ExplainStep, ThePlantedRowIsFirstInItsStep) {
    train(config(), {output("run")});
    const int64_t last = last_step(path("run"));
    bool seen = false;
    for (int64_t step = last; step > last / 2 && !seen; --step) {
        const ExplainedStep e = explain(step);
        const auto planted = std::ranges::find(e.samples, path("train.jsonl") + ":161", &SampleShare::place);
        if (planted == e.samples.end()) continue;
        seen = true;
        EXPECT_EQ(planted, e.samples.begin());
        EXPECT_GT(planted->loss, 2 * e.loss);
        EXPECT_EQ(planted->tokens, 10);
    }
    EXPECT_TRUE(seen);
    EXPECT_GE(conspicuous_step(path("run")), 1);
}

TEST_F(ExplainStep, RefusesWhatIsNoStepOfARun) {
    train(config(), {output("run"), "max_steps=6"});
    expect_error(Exit::config, "step 7: expected one from 1 to 6", [&] { explain(7); });
    expect_error(Exit::config, "expected the output_dir of a run", [&] { (void)explain_step(path("none"), 1); });
    expect_error(Exit::data, "expected the folder of a run", [&] { (void)conspicuous_step(path("none")); });
}

}  // namespace
}  // namespace colonnade
