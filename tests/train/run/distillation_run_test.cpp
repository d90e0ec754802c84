// Runs of stage distill from a user's view: the plan, the log, resuming to the bit, evaluation on a part of the data, and
// the warning about lists of another place.

#include "tests/support/expect_error.h"
#include "tests/support/tiny_run.h"
#include "train/run/machine.h"

namespace colonnade {
namespace {

/// Rows of the chain of chain_rows(), of which a teacher knows the next token with probability 0.75, and gives 0.125 to
/// the one after it. `shift`: the lists are those of the token so many places later.
std::string taught_rows(int64_t rows, int64_t shift = 0) {
    const Philox random{5, 0};
    const auto next = [](int64_t id) { return (7 * id + 3) % chain_vocab; };
    std::string text;
    for (int64_t row = 0; row < rows; ++row) {
        const auto length = 6 + static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * row), 30));
        int64_t id = static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * row + 1), chain_vocab));
        std::vector<std::string> ids, lists;
        for (int64_t i = 0; i < length; ++i, id = next(id)) {
            ids.push_back(fmt::format("{}", id));
            int64_t likely = id;
            for (int64_t k = 0; k < shift; ++k) likely = next(likely);
            lists.push_back(i == 0 ? "null"
                                   : fmt::format(R"({{"{}": {}, "{}": {{"logprob": {}}}}})", likely, std::log(0.75),
                                                 (likely + 1) % chain_vocab, std::log(0.125)));
        }
        text += fmt::format(R"({{"input_ids": [{}], "logprobs": [{}]}})"
                            "\n",
                            fmt::join(ids, ", "), fmt::join(lists, ", "));
    }
    return text;
}

class DistillationRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        spill(path("train.jsonl"), taught_rows(160));
        write_config(
            "stage: distill\nper_device_train_batch_size: 1\ngradient_accumulation_steps: 2\nnum_train_epochs: 12\n"
            "learning_rate: 0.02\nwarmup_steps: 2\nlogging_steps: 1\nval_size: 16\neval_strategy: epoch\n"
            "save_strategy: epoch\n");
    }
};

TEST_F(DistillationRun, LearnsTheProbabilitiesOfTheTeacher) {
    const std::string printed = train(config(), {output("run")});
    EXPECT_NE(printed.find("\nloss       1 x forward KL from the teacher, 2 tokens a list at most; temperature 1\n"),
              std::string::npos)
        << printed;
    EXPECT_EQ(printed.find("warning"), std::string::npos) << printed;
    const std::vector<Json> log = read_log(path("run"));
    const int64_t last = last_step(path("run"));
    EXPECT_GT(value_at(log, "divergence", 1), 1);
    EXPECT_LT(value_at(log, "eval_divergence", last), 0.1);
    EXPECT_EQ(value_at(log, "eval_loss", last), value_at(log, "eval_divergence", last));
    // The teacher is not certain of the text.
    EXPECT_NEAR(value_at(log, "eval_cross_entropy", last), -std::log(0.75), 0.15);
    EXPECT_GT(value_at(log, "eval_mean_token_accuracy", last), 0.95);
}

TEST_F(DistillationRun, ResumesToTheBit) {
    train(config(), {output("whole"), "max_steps=12", "save_strategy=steps", "save_steps=5", "kd_ce_alpha=0.5",
                     "beta=0.5", "deterministic=true"});
    train(config(), {output("parts"), "max_steps=12", "save_strategy=steps", "save_steps=5", "kd_ce_alpha=0.5",
                     "beta=0.5", "deterministic=true", "save_total_limit=0"});
    std::filesystem::remove_all(checkpoint_folder(path("parts"), 10));
    std::filesystem::remove_all(checkpoint_folder(path("parts"), 12));
    std::filesystem::remove(path("parts/model.safetensors"));
    train(config(), {output("parts"), "max_steps=12", "save_strategy=steps", "save_steps=5", "kd_ce_alpha=0.5",
                     "beta=0.5", "deterministic=true", "save_total_limit=0", "resume_from_checkpoint=auto"});
    const RunResult whole = result_of(path("whole")), parts = result_of(path("parts"));
    EXPECT_TRUE(whole.state == parts.state);
    EXPECT_TRUE(whole.model == parts.model);
}

TEST_F(DistillationRun, WarnsOfListsThatAreShifted) {
    spill(path("train.jsonl"), taught_rows(40, 1));
    EXPECT_NE(
        train(config(), {output("run"), "max_steps=3"}).find("of the teacher's lists hold the token that the text"),
        std::string::npos);
}

TEST_F(DistillationRun, KeysThatContradict) {
    const auto refused = [&](std::vector<std::string> arguments, const std::string& part) {
        arguments.push_back(output("run"));
        expect_error(Exit::config, part, [&] { (void)load_config(config(), arguments); });
    };
    refused({"kd_alpha=0"}, "kd_alpha and kd_ce_alpha are both 0: nothing would be learned");
    refused({"kd_ce_alpha=0.5", "temperature=2"}, "the cross-entropy of a text is that at temperature 1");
    refused({"beta=1.5"}, "expected 0 (forward KL) to 1 (reverse KL) in stage distill");
    refused({"stage=sft", "kd_ce_alpha=1"}, "kd_ce_alpha is for stage distill, this is stage sft");
    EXPECT_EQ(load_config(config(), {output("run")}).config.beta, 0);
}

}  // namespace
}  // namespace colonnade
