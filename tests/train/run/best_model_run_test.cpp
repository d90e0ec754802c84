// The best model of a run: which one is exported, when a run stops early, and that neither depends on kills, resumes and
// ranks.

#include "tests/support/rank_runs.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// Evaluation losses fall up to step 28 and are higher at step 32; at step 36 they are lower again.
const std::string settings =
    "max_steps: 40\nval_size: 20\neval_steps: 4\nsave_steps: 8\nlr_scheduler_type: constant\nlearning_rate: 0.055\n"
    "logging_steps: 1\nload_best_model_at_end: true\n";

class BestRun : public RanksTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(settings);
    }
    std::string model(const std::string& name) const { return slurp(path(name) + "/model.safetensors"); }
    std::string model_of_step(int64_t step) const {
        const std::string name = fmt::format("to {}", step);
        train(config(), {output(name), fmt::format("max_steps={}", step), "load_best_model_at_end=false"});
        return model(name);
    }
    Json best_of(const std::string& name, int64_t step) const {
        return read_json_file(checkpoint_folder(path(name), step) + "/trainer_state.json").at("best");
    }
    /// What a run that died after saving `step` has left.
    void leave(const std::string& run, int64_t step, const std::string& into) const {
        fs::create_directories(path(into));
        for (const int64_t each : checkpoint_steps(path(run)))
            if (each <= step) fs::copy(checkpoint_folder(path(run), each), checkpoint_folder(path(into), each));
        fs::copy(path(run) + "/metrics.jsonl", path(into) + "/metrics.jsonl");
    }
};

TEST_F(BestRun, IsExportedThoughItsStepWasNotDueToBeSaved) {
    const std::string printed = train(config(), {output("run"), "max_steps=32", "save_total_limit=1"});
    EXPECT_NE(printed.find("at step 28; the exported model is that of " + path("run/checkpoint-28") + "\n"),
              std::string::npos)
        << printed;
    EXPECT_TRUE(model("run") == model_of_step(28));
    EXPECT_FALSE(model("run") == model_of_step(32));
    EXPECT_EQ(checkpoint_steps(path("run")), (std::vector<int64_t>{28, 32})) << "save_total_limit deletes no best one";
    const Json best = best_of("run", 32);
    EXPECT_EQ(best.at("step"), 28);
    EXPECT_EQ(best.at("value"), fmt::format("{}", value_at(read_log(path("run")), "eval_loss", 28)));
}

TEST_F(BestRun, OfTheLastStepNeedsNoLoading) {
    const std::string printed = train(config(), {output("run"), "max_steps=28"});
    EXPECT_NE(printed.find(" at step 28, which is the last step\n"), std::string::npos) << printed;
    EXPECT_TRUE(model("run") == model_of_step(28));
}

TEST_F(BestRun, StopsEarlyAndStaysStopped) {
    const std::string printed = train(config(), {output("run"), "early_stopping_patience=1"});
    EXPECT_NE(printed.find("stopped early after step 32 of 40: 1 of 1 evaluations without improvement"),
              std::string::npos)
        << printed;
    EXPECT_TRUE(model("run") == model_of_step(28));
    const RunResult result = result_of(path("run"));
    // A difference that is too small is no improvement, but the best all the same.
    train(config(), {output("demanding"), "early_stopping_patience=1", "early_stopping_threshold=0.6"});
    EXPECT_EQ(last_step(path("demanding")), 8);
    EXPECT_EQ(best_of("demanding", 8).at("step"), 8);
    // Resumed, it has nothing to do, unless its patience grows.
    const std::string again =
        train(config(), {output("run"), "early_stopping_patience=1", "resume_from_checkpoint=auto"});
    EXPECT_EQ(again.find("\nstep 33/"), std::string::npos) << again;
    expect_equal(result_of(path("run")), result, "resumed");
    train(config(), {output("run"), "early_stopping_patience=2", "resume_from_checkpoint=auto"});
    EXPECT_EQ(last_step(path("run")), 40);
}

TEST_F(BestRun, SurvivesAStopAnywhere) {
    const std::vector<std::string> early = {"early_stopping_patience=1", "save_steps=1", "save_total_limit=0"};
    const auto with = [&](const std::string& name) {
        std::vector<std::string> all = early;
        all.push_back(output(name));
        return all;
    };
    train(config(), with("unbroken"));
    const RunResult unbroken = result_of(path("unbroken"));
    ASSERT_EQ(last_step(path("unbroken")), 32);
    for (const int64_t stop : {1, 3, 4, 5, 27, 28, 29, 31, 32}) {
        const std::string name = fmt::format("stopped {}", stop);
        leave("unbroken", stop, name);
        std::vector<std::string> all = with(name);
        all.push_back("resume_from_checkpoint=auto");
        train(config(), all);
        expect_equal(result_of(path(name)), unbroken, name);
        EXPECT_EQ(best_of(name, 32), best_of("unbroken", 32));
    }
    // In a folder of its own the best checkpoint stays where it is, and is found after another resume.
    const std::string from = checkpoint_folder(path("unbroken"), 30);
    std::vector<std::string> branch = with("branch");
    branch.insert(branch.end(), {"resume_from_checkpoint=" + from});
    train(config(), branch);
    EXPECT_EQ(best_of("branch", 32).at("output_dir"), path("unbroken"));
    EXPECT_TRUE(model("branch") == unbroken.model);
    fs::remove(path("branch/config.json"));
    branch.back() = "resume_from_checkpoint=auto";
    train(config(), branch);
    EXPECT_TRUE(model("branch") == unbroken.model);
}

TEST_F(BestRun, IsSavedAloneIfAsked) {
    train(config(), {output("run"), "max_steps=36", "save_strategy=best", "save_total_limit=0"});
    EXPECT_EQ(checkpoint_steps(path("run")), (std::vector<int64_t>{4, 8, 12, 16, 20, 24, 28, 36}));
    train(config(), {output("greater"), "max_steps=36", "save_strategy=best", "greater_is_better=true"});
    EXPECT_EQ(checkpoint_steps(path("greater")), std::vector<int64_t>{4});
    EXPECT_TRUE(model("greater") == model_of_step(4));
    // A metric of the stage, as transformers spells it; the model itself is that of the last step.
    train(config(), {output("accuracy"), "max_steps=32", "save_strategy=best", "load_best_model_at_end=false",
                     "metric_for_best_model=mean_token_accuracy"});
    EXPECT_EQ(checkpoint_steps(path("accuracy")).back(), 28);
    EXPECT_TRUE(model("accuracy") == model_of_step(32));
}

TEST_F(BestRun, ThatIsLostIsTold) {
    train(config(), {output("run"), "max_steps=32", "save_total_limit=0"});
    const std::string later = model_of_step(34);
    for (const bool deleted : {true, false}) {
        const std::string name = deleted ? "deleted" : "damaged";
        leave("run", 32, name);
        const std::string best = checkpoint_folder(path(name), 28);
        if (deleted)
            fs::remove_all(best);
        else
            fs::resize_file(best + "/config.yaml", 3);
        // Later evaluations are better than none.
        const std::string more = train(config(), {output(name), "max_steps=34", "resume_from_checkpoint=auto"});
        EXPECT_NE(more.find("warning: the best checkpoint so far (eval_loss "), std::string::npos) << more;
        EXPECT_NE(more.find(" at step 28) is lost: " + best), std::string::npos) << more;
        EXPECT_NE(more.find(" at step 34, which is the last step\n"), std::string::npos) << more;
        EXPECT_TRUE(model(name) == later);
    }
    leave("run", 32, "none");
    fs::remove_all(checkpoint_folder(path("none"), 28));
    const std::string none = train(config(), {output("none"), "max_steps=32", "resume_from_checkpoint=auto"});
    EXPECT_NE(none.find("warning: no checkpoint is known as the best by eval_loss; the exported model is that of the "
                        "last step, 32"),
              std::string::npos)
        << none;
    EXPECT_TRUE(model("none") == model_of_step(32));
}

TEST_F(BestRun, ThatIsLostMeanwhileIsTold) {
    // The first evaluation has the greatest loss.
    Program program("train", {config(), output("run"), "max_steps=1000", "eval_steps=100", "greater_is_better=true"});
    ASSERT_TRUE(program.read_until("step 300/"));
    fs::remove_all(checkpoint_folder(path("run"), 100));
    const Program::Result result = program.wait();
    EXPECT_EQ(result.exit, 0);
    EXPECT_NE(result.err.find("is lost: " + path("run/checkpoint-100")), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("; the exported model is that of the last step, 1000"), std::string::npos) << result.err;
    EXPECT_FALSE(model("run").empty());
}

TEST_F(BestRun, SurvivesKillsAtItsSaves) {
    const auto begin = [&](const std::string& name) {
        return Program("train", {config(), output(name), "resume_from_checkpoint=auto", "max_steps=120",
                                 "learning_rate=0.003", "eval_steps=3", "loss_spike=off"});
    };
    EXPECT_EQ(begin("clean").wait().exit, 0);
    int kills = 0;
    for (int i = 0; i < 8; ++i) {
        Program program = begin("run");
        if (!program.read_until("saving ", 1 + i % 4)) continue;
        usleep(static_cast<useconds_t>(i * 400));
        program.send(SIGKILL);
        kills += program.wait().exit != 0;
    }
    EXPECT_GT(kills, 3);
    const Program::Result last = begin("run").wait();
    EXPECT_EQ(last.exit, 0) << last.err;
    expect_equal(result_of(path("run")), result_of(path("clean")), "after kills");
    EXPECT_EQ(best_of("run", 120), best_of("clean", 120));
}

TEST_F(BestRun, IsTheSameOnEveryNumberOfRanks) {
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
    hide_scarce_gpus(2);
    const std::vector<std::string> early = {"early_stopping_patience=1"};
    train_ranks(2, "two", early);
    const std::string printed = train_ranks(2, "sharded", {"early_stopping_patience=1", "zero_stage=1"}).out;
    EXPECT_NE(printed.find("the exported model is that of " + path("sharded/checkpoint-")), std::string::npos)
        << printed;
    expect_same("sharded", "two");
    const int64_t best = best_of("two", last_step(path("two"))).at("step");
    ASSERT_LT(best, last_step(path("two")));
    train_ranks(2, "to the best", {fmt::format("max_steps={}", best), "load_best_model_at_end=false"});
    EXPECT_TRUE(model("two") == model("to the best"));
}

TEST_F(BestRun, NeedsAMetricOfTheStage) {
    expect_error(
        Exit::config,
        "metric_for_best_model: evaluation in stage sft reports no 'eval_accuracy'; expected one of eval_loss, "
        "eval_perplexity, eval_mean_token_accuracy",
        [&] {
            train(config(), {output("run"), "metric_for_best_model=accuracy"});
        });
    EXPECT_FALSE(fs::exists(path("run")));
}

}  // namespace
}  // namespace colonnade
