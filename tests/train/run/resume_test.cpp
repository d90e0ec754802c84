// Resuming, stage by stage: from every step of a run (in the middle of an epoch, at its edge, after a step of fewer
// packs, in the middle of a window of the packer, at the last step), after a signal, and behind damaged checkpoints: the
// same bits of state, model and log as the run that was never stopped.

#include "tests/support/tiny_run.h"
#include "train/folders/run_checkpoints.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class ResumedStage : public RunTest, public testing::WithParamInterface<const char*> {
  protected:
    /// Windows of 24 samples, of which some are packed for one step and some for the next; two micro-steps of two packs;
    /// log lines of three steps. Stage pt has moments of 8 bits, dpo Muon.
    void SetUp() override {
        RunTest::SetUp();
        const std::string stage = GetParam();
        if (stage == "dpo") spill(path("train.jsonl"), pair_rows(100));
        write_config(
            "per_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nlearning_rate: 0.01\nweight_decay: 0.1\n"
            "packing_window: 24\nlogging_steps: 3\nsave_steps: 1\nsave_total_limit: 0\nval_size: 20\neval_steps: 4\n"
            "stage: " +
            stage +
            (stage == "pt"    ? "\ndocument_mask: false\noptim: adamw_8bit\n"
             : stage == "dpo" ? "\noptim: muon\n"
                              : "\n"));
        shape_ = {"device=cpu", stage == "dpo" ? "packing_length=96" : "packing_length=64"};
    }
    std::vector<std::string> arguments(const std::string& run, const std::vector<std::string>& more) const {
        std::vector<std::string> all = shape_;
        all.push_back(output(run));
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
    std::vector<std::string> shape_;
};

TEST_P(ResumedStage, AtEveryStepGivesTheSameBits) {
    const std::string epochs = "num_train_epochs=2";
    train(config(), arguments("unbroken", {epochs}));
    const RunResult unbroken = result_of(path("unbroken"));
    const int64_t last = last_step(path("unbroken"));
    ASSERT_GE(last, 8);
    // The last step of an epoch has fewer packs than the others, so that its accumulation ends early, on empty packs.
    std::string plan;
    quietly([&] { plan = Trainer(open_session(load_config(config(), arguments("unbroken", {epochs})))).plan(); });
    EXPECT_LT(std::stoll(plan.substr(plan.find(" in ", plan.find("\nrun ")) + 4)), 4 * last) << plan;
    for (int64_t stop = 1; stop <= last; ++stop) {
        const std::string name = fmt::format("stopped-{}", stop);
        fs::create_directories(path(name));
        fs::copy(checkpoint_folder(path("unbroken"), stop), checkpoint_folder(path(name), stop));
        fs::copy(path("unbroken/metrics.jsonl"), path(name) + "/metrics.jsonl");
        const std::string printed = train(
            config(), arguments(name, {epochs, "resume_from_checkpoint=auto", "save_strategy=no", "save_steps=0"}));
        EXPECT_NE(printed.find(fmt::format("at step {} of {}", stop, last)), std::string::npos);
        EXPECT_EQ(printed.find("note: "), std::string::npos) << printed;
        const std::string model = slurp(path(name) + "/model.safetensors");
        EXPECT_TRUE(model == unbroken.model) << name << ": the exported model differs";
        EXPECT_EQ(read_log(path(name)), unbroken.log) << name;
        // The moments, too: the same run again, which saves its last step.
        if (stop % 3 != 0 && stop != last - 1) continue;
        for (const char* file : {"/model.safetensors", "/config.json"}) fs::remove(path(name) + file);
        train(config(), arguments(name, {epochs, "resume_from_checkpoint=auto", "save_steps=1000"}));
        expect_equal(result_of(path(name)), unbroken, name);
    }
}

TEST_P(ResumedStage, AfterASignalGivesTheSameBits) {
    const std::vector<std::string> often = {"num_train_epochs=30", "logging_steps=1", "save_steps=1000",
                                            "eval_strategy=no", "eval_steps=0"};
    train(config(), arguments("unbroken", often));
    std::vector<std::string> resuming = arguments("stopped", often);
    resuming.insert(resuming.begin(), config());
    resuming.push_back("resume_from_checkpoint=auto");
    Program program("train", resuming);
    ASSERT_TRUE(program.read_until("step ", 5));
    program.send(SIGTERM);
    const Program::Result result = program.wait();
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_NE(result.out.find("stopped by SIGTERM after step "), std::string::npos) << result.out;
    EXPECT_LT(last_step(path("stopped")), last_step(path("unbroken")));
    EXPECT_EQ(run("train", resuming).exit, 0);
    expect_equal(result_of(path("stopped")), result_of(path("unbroken")), "after a signal");
}

INSTANTIATE_TEST_SUITE_P(Stages, ResumedStage, testing::Values("sft", "pt", "dpo"),
                         [](const auto& of) { return std::string(of.param); });

// --- Damaged checkpoints ---

class ResumeBehindDamage : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config("max_steps: 8\nlearning_rate: 0.01\nlogging_steps: 3\nsave_steps: 2\nsave_total_limit: 0\n");
        train(config(), {output("unbroken")});
        unbroken_ = result_of(path("unbroken"));
        // A run that died after step 6.
        fs::copy(path("unbroken"), path("run"), fs::copy_options::recursive);
        for (const char* file : {"/model.safetensors", "/config.json"}) fs::remove(path("run") + file);
        fs::remove_all(path("run/checkpoint-8"));
    }
    const std::string auto_ = "resume_from_checkpoint=auto";
    RunResult unbroken_;
};

TEST_F(ResumeBehindDamage, TheNewestWholeOneGoesOn) {
    const std::string newest = path("run/checkpoint-6"), state = newest + "/state-00001-of-00001.h5";
    std::string damaged = slurp(state);
    damaged[damaged.size() / 2] ^= 4;
    spill(state, damaged);
    fs::create_directory(path("run/checkpoint-7"));  // empty: of a copy that stopped, say
    const std::string printed = train(config(), {output("run"), auto_});
    EXPECT_NE(printed.find("warning: " + state + ": bytes "), std::string::npos) << printed;
    EXPECT_NE(printed.find("; kept as checkpoint-6.damaged, and the run resumes from an older checkpoint\n"),
              std::string::npos)
        << printed;
    EXPECT_NE(printed.find("warning: " + path("run/checkpoint-7") +
                           ": not a checkpoint: manifest.json is missing; kept as checkpoint-7.damaged, "),
              std::string::npos)
        << printed;
    EXPECT_NE(printed.find("resumed from " + path("run/checkpoint-4") + " at step 4 of 8"), std::string::npos);
    // The run saved these steps again, beside what was damaged.
    EXPECT_EQ(checkpoint_steps(path("run")), (std::vector<int64_t>{2, 4, 6, 8}));
    EXPECT_TRUE(slurp(path("run/checkpoint-6.damaged/state-00001-of-00001.h5")) == damaged);
    EXPECT_TRUE(fs::is_empty(path("run/checkpoint-7.damaged")));
    expect_equal(result_of(path("run")), unbroken_, "behind the damage");
    EXPECT_EQ(train(config(), {output("run"), auto_}).find("warning: "), std::string::npos) << "told again";
}

TEST_F(ResumeBehindDamage, AFolderThatTheUserNamesIsAnError) {
    const std::string newest = path("run/checkpoint-6");
    fs::resize_file(newest + "/config.yaml", 3);
    expect_error(Exit::data, newest + "/config.yaml: 3 bytes, expected ", [&] {
        train(config(), {output("run"), "resume_from_checkpoint=" + newest});
    });
    EXPECT_EQ(checkpoint_steps(path("run")), (std::vector<int64_t>{2, 4, 6}));
}

TEST_F(ResumeBehindDamage, NoneIsWholeIsAnErrorThatChangesNothing) {
    for (const int64_t step : {2, 4, 6}) fs::resize_file(checkpoint_folder(path("run"), step) + "/manifest.json", 9);
    const std::string before = listing(path("run"));
    expect_error(Exit::data,
                 path("run") + ": has 3 checkpoints, and none is whole: " + path("run/checkpoint-6/manifest"), [&] {
                     train(config(), {output("run"), auto_});
                 });
    EXPECT_EQ(listing(path("run")), before);
}

// --- Another machine ---

/// OpenBLAS is told to compute as an older processor does.
TEST_F(ResumeBehindDamage, AnotherProcessorIsNoted) {
#ifndef __x86_64__
    GTEST_SKIP() << "names kernels of x86-64";
#endif
    const auto resume = [&](const char* kernels) {
        for (const char* file : {"/model.safetensors", "/config.json"}) fs::remove(path("here") + file);
        return Program("train", {config(), output("here"), auto_}, [&] { setenv("OPENBLAS_CORETYPE", kernels, 1); })
            .wait();
    };
    EXPECT_EQ(resume("Haswell").exit, 0);
    fs::remove_all(path("here/checkpoint-8"));
    const Program::Result same = resume("Haswell");
    EXPECT_EQ(same.out.find("note: the last bits"), std::string::npos) << same.out;
    fs::remove_all(path("here/checkpoint-8"));
    const Program::Result other = resume("Nehalem");
    EXPECT_EQ(other.exit, 0) << other.err;
    EXPECT_NE(other.out.find("note: the last bits may differ from an uninterrupted run, because since this checkpoint "
                             "changed: OpenBLAS: "),
              std::string::npos)
        << other.out;
    EXPECT_NE(other.out.find("Haswell, now "), std::string::npos) << other.out;
    EXPECT_EQ(other.out.find("processor: "), std::string::npos) << "it is the same: " << other.out;
    const Json facts = read_json_file(path("here/checkpoint-2/trainer_state.json")).at("made_by");
    for (const char* name : {"program", "device", "processor", "instructions", "OpenBLAS"})
        EXPECT_FALSE(facts.at(name).get<std::string>().empty()) << name;
}

/// The run goes on although old checkpoints cannot be deleted, and says so once.
TEST_F(ResumeBehindDamage, OldCheckpointsThatStayAreToldOnce) {
    if (geteuid() != 0) GTEST_SKIP() << "only root may become somebody else";
    // In a folder with the sticky bit nobody but its owner renames a checkpoint.
    for (const auto& entry : fs::directory_iterator(path("run")))
        if (!entry.is_directory()) fs::remove(entry);
    fs::permissions(folder_, fs::perms::all);
    fs::permissions(path("run"), fs::perms::all | fs::perms::sticky_bit);
    const Program::Result result =
        Program("train",
                {config(), output("run"), auto_, "save_total_limit=1", "save_steps=1", "prepared_path=" + path("new")},
                [] {
                    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
                })
            .wait();
    if (result.exit == 127) GTEST_SKIP() << "somebody else may not run the program";
    EXPECT_EQ(result.exit, 0) << result.err;
    const std::string told = "\nwarning: an old checkpoint stays, and so may later ones: " + path("run/checkpoint-2") +
                             ": cannot rename for deletion: Operation not permitted\n";
    const size_t at = result.err.find(told);
    ASSERT_NE(at, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find("warning: ", at + told.size()), std::string::npos) << result.err;
    EXPECT_EQ(checkpoint_steps(path("run")), (std::vector<int64_t>{2, 4, 6, 8})) << "what it may delete, it does";
    EXPECT_TRUE(result_of(path("run")).state == unbroken_.state);
    EXPECT_TRUE(result_of(path("run")).model == unbroken_.model);
}

}  // namespace
}  // namespace colonnade
