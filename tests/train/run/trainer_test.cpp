// The trainer from a user's view: a run that is stopped, killed or resumed anywhere ends with the same bits as an
// uninterrupted one; its figures are true; it never loses the files of an earlier run by accident.

#include <omp.h>

#include <cmath>
#include <map>

#include "data/store/unigram.h"
#include "engine/io/folder_lock.h"
#include "tests/support/tiny_run.h"
#include "train/run/split_store.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

// --- Resume ----------------------------------------------------------------------------------------------------------

class Resume : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        // Log lines cover several steps, so that a checkpoint falls between two lines.
        write_config(
            "per_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nnum_train_epochs: 2\nlearning_rate: 0.01\n"
            "weight_decay: 0.1\nlogging_steps: 3\nsave_steps: 1\nsave_total_limit: 0\nval_size: 20\neval_steps: 4\n");
    }
    /// The files of a run that died some time after saving `step`: that checkpoint, and a log with later steps.
    void leave(const std::string& run, int64_t step, const std::string& into) const {
        fs::create_directories(path(into));
        fs::copy(checkpoint_folder(path(run), step), checkpoint_folder(path(into), step));
        fs::copy(path(run) + "/metrics.jsonl", path(into) + "/metrics.jsonl");
    }
};

TEST_F(Resume, AtAnyStepGivesTheSameBits) {
    train(config(), {output("unbroken")});
    const RunResult unbroken = result_of(path("unbroken"));
    const int64_t last = last_step(path("unbroken")), edge = last / 2;
    ASSERT_GE(last, 16);
    for (const int64_t stop : {int64_t{1}, int64_t{2}, edge - 1, edge, edge + 1, last - 1, last}) {
        const std::string name = fmt::format("stopped-{}", stop);
        leave("unbroken", stop, name);
        const std::string printed = train(config(), {output(name), "resume_from_checkpoint=auto", "save_steps=1000"});
        EXPECT_NE(printed.find(fmt::format("at step {} of {}", stop, last)), std::string::npos);
        expect_equal(result_of(path(name)), unbroken, name);
    }
}

TEST_F(Resume, TwiceInARowGivesTheSameBits) {
    train(config(), {output("unbroken")});
    leave("unbroken", 3, "once");
    train(config(), {output("once"), "resume_from_checkpoint=auto", "save_steps=8"});
    leave("once", 8, "twice");
    train(config(),
          {output("twice"), "resume_from_checkpoint=" + checkpoint_folder(path("twice"), 8), "save_steps=99"});
    expect_equal(result_of(path("twice")), result_of(path("unbroken")), "twice");
}

TEST_F(Resume, RefusesOtherData) {
    train(config(), {output("run")});
    fs::remove(path("run") + "/config.json");
    spill(path("train.jsonl"), chain_rows(160, 2));
    const RunResult before = result_of(path("run"));
    expect_error(Exit::config, "other data", [&] { train(config(), {output("run"), "resume_from_checkpoint=auto"}); });
    expect_equal(result_of(path("run")), before, "after the refusal");
}

TEST_F(Resume, ReportsAChangedLearningRate) {
    train(config(), {output("run"), "num_train_epochs=0.2"});
    const std::string printed =
        train(config(), {output("run"), "num_train_epochs=0.2", "resume_from_checkpoint=auto", "learning_rate=0.02"});
    EXPECT_NE(printed.find("note: the config changed since this checkpoint"), std::string::npos);
    EXPECT_NE(printed.find("learning_rate: 0.01, now 0.02"), std::string::npos) << printed;
}

TEST_F(Resume, RefusesACheckpointPastTheEnd) {
    train(config(), {output("run"), "num_train_epochs=0.2"});
    expect_error(Exit::config, "is at step 3, but the run ends at step 2", [&] {
        train(config(), {output("run"), "num_train_epochs=0.15", "resume_from_checkpoint=auto"});
    });
}

TEST_F(Resume, FromAnOlderCheckpointNeedsAFolderOfItsOwn) {
    train(config(), {output("run"), "num_train_epochs=0.2"});
    const RunResult before = result_of(path("run"));
    const std::string older = "resume_from_checkpoint=" + checkpoint_folder(path("run"), 2);
    expect_error(Exit::config, "already contains a run: set resume_from_checkpoint: auto to continue it", [&] {
        train(config(), {output("run"), "num_train_epochs=0.2", older});
    });
    expect_equal(result_of(path("run")), before, "after the refusal");
    train(config(), {output("branch"), "num_train_epochs=0.2", older});
    EXPECT_TRUE(result_of(path("branch")).state == before.state);
}

// --- Signals ---------------------------------------------------------------------------------------------------------

// The program prints one line per step into a pipe of one page, which has room for fewer than 64 lines: in runs of
// several hundred steps a signal after a line arrives before the end.
class Signals : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config(
            "num_train_epochs: 6\nlearning_rate: 0.01\nlogging_steps: 1\nsave_steps: 16\nsave_total_limit: 2\n");
        train(config(), {output("unbroken")});
        unbroken_ = result_of(path("unbroken"));
        last_ = last_step(path("unbroken"));
        ASSERT_GE(last_, 300);
    }
    std::vector<std::string> arguments() const { return {config(), output("run"), "resume_from_checkpoint=auto"}; }
    RunResult unbroken_;
    int64_t last_ = 0;
};

TEST_F(Signals, SigtermSavesAndLeaves) {
    int stops = 0;
    for (const int signal : {SIGTERM, SIGINT}) {
        Program program("train", arguments());
        ASSERT_TRUE(program.read_until("step ", 3));
        program.send(signal);
        const Program::Result result = program.wait();
        EXPECT_EQ(result.exit, 0) << result.err;
        const int64_t step = last_step(path("run"));
        const char* name = signal == SIGTERM ? "SIGTERM" : "SIGINT";
        EXPECT_NE(result.out.find(fmt::format("stopped by {} after step {} of {}", name, step, last_)),
                  std::string::npos)
            << result.out;
        EXPECT_FALSE(fs::exists(path("run") + "/config.json")) << "exported a model that is not trained to its end";
        EXPECT_EQ(listing(path("run")).find(".tmp-"), std::string::npos) << "left while it saved";
        stops += step < last_;
    }
    EXPECT_EQ(stops, 2);
    EXPECT_EQ(run("train", arguments()).exit, 0);
    expect_equal(result_of(path("run")), unbroken_, "after two stops");
}

TEST_F(Signals, TheSecondEndsAtOnce) {
    Program program("train", arguments());
    ASSERT_TRUE(program.read_until("step ", 20));
    for (const int signal : {SIGTERM, SIGINT}) program.send(signal);  // two of a kind could become one
    const Program::Result result = program.wait();
    EXPECT_TRUE(result.exit == 128 + SIGTERM || result.exit == 128 + SIGINT) << result.exit << result.err;
    EXPECT_EQ(result.out.find("stopped by"), std::string::npos) << result.out;
    EXPECT_EQ(run("train", arguments()).exit, 0);
    expect_equal(result_of(path("run")), unbroken_, "after two signals");
}

TEST_F(Signals, SighupIsAsSigtermUnlessItIsIgnored) {
    for (const bool ignored : {false, true}) {
        Program program("train", {config(), output(ignored ? "nohup" : "hup")}, [&] {
            if (ignored) signal(SIGHUP, SIG_IGN);
        });
        ASSERT_TRUE(program.read_until("step ", 3));
        program.send(SIGHUP);
        const Program::Result result = program.wait();
        EXPECT_EQ(result.exit, 0) << result.err;
        EXPECT_EQ(result.out.find("stopped by SIGHUP") != std::string::npos, !ignored) << result.out;
    }
}

/// Nobody has to read what a run prints: descriptors that are closed, a full disk, a reader that left.
TEST_F(Signals, OutputThatFailsEndsNoRun) {
    const auto quiet = [&](const std::string& name, const std::function<void()>& setup) {
        EXPECT_EQ(Program("train", {config(), output(name)}, setup).wait().exit, 0) << name;
        const RunResult result = result_of(path(name));
        EXPECT_TRUE(result.state == unbroken_.state) << name;
        EXPECT_EQ(result.log, unbroken_.log) << name;
    };
    quiet("closed", [] {
        for (int descriptor = 0; descriptor <= 2; ++descriptor) close(descriptor);
    });
    quiet("full", [] {
        for (int descriptor = 1; descriptor <= 2; ++descriptor) dup2(open("/dev/full", O_WRONLY), descriptor);
    });
    quiet("left", [] {
        int ends[2];
        if (pipe(ends) != 0) _exit(1);
        for (int descriptor = 1; descriptor <= 2; ++descriptor) dup2(ends[1], descriptor);
        close(ends[0]);
    });
}

TEST(StopSignal, ReportsTheFirstAndEndsAtTheSecond) {
    const auto body = [](int signals) {
        const StopSignal stop({.answers = false});
        if (StopSignal::number()) return 1;
        for (int i = 0; i < signals; ++i) raise(SIGTERM);
        return StopSignal::name(StopSignal::number()) == std::string("SIGTERM") ? 0 : 2;
    };
    EXPECT_EQ(exit_of_child([&] { return body(1); }), 0);
    EXPECT_EQ(exit_of_child([&] { return body(2); }), 128 + SIGTERM);
}

// --- Same bits, true figures ---

class Figures : public RunTest {};

TEST_F(Figures, BitsDoNotDependOnThreads) {
    const std::vector<std::string> small = {"max_steps=6"};
    // Inner dimensions of several hundred, at which more threads would split a matrix product differently.
    const std::vector<std::string> large = {
        "max_steps=2",          "model.hidden_size=72", "model.intermediate_size=600",  "model.num_attention_heads=6",
        "model.vocab_size=700", "packing_length=420",   "per_device_train_batch_size=2"};
    for (const auto& shape : {small, large}) {
        std::map<int, RunResult> results;
        for (const int threads : {1, 3}) {
            std::vector<std::string> arguments = shape;
            const std::string name = fmt::format("threads-{}-{}", threads, shape.size());
            arguments.insert(arguments.end(), {output(name), fmt::format("threads={}", threads), "logging_steps=1"});
            train(config(), arguments);
            EXPECT_EQ(omp_get_max_threads(), threads);
            results[threads] = result_of(path(name));
        }
        expect_equal(results[3], results[1], shape.back());
    }
}

TEST_F(Figures, AccumulationEqualsABatch) {
    const auto losses = [&](const std::string& name, int batch, int accumulation) {
        train(config(), {output(name), fmt::format("per_device_train_batch_size={}", batch),
                         fmt::format("gradient_accumulation_steps={}", accumulation), "max_steps=8", "logging_steps=1",
                         "learning_rate=1e-3"});
        return read_log(path(name));
    };
    const std::vector<Json> once = losses("4x1", 4, 1), four_times = losses("1x4", 1, 4);
    ASSERT_EQ(once.size(), 8u);
    for (int64_t step = 1; step <= 8; ++step)
        for (const char* key : {"loss", "grad_norm"}) {
            const double expected = value_at(once, key, step);
            EXPECT_NEAR(value_at(four_times, key, step), expected, 1e-5 * expected) << key << " at step " << step;
        }
}

TEST_F(Figures, EvaluationsAndCheckpointsDivideAnEpoch) {
    train(config(), {output("run"), "num_train_epochs=2", "val_size=20", "evals_per_epoch=3", "saves_per_epoch=2",
                     "save_total_limit=0"});
    const std::vector<int64_t> saves = checkpoint_steps(path("run"));
    std::vector<int64_t> evaluations;
    for (const Json& line : read_log(path("run")))
        if (line.contains("eval_loss")) evaluations.push_back(line.at("step"));
    ASSERT_EQ(saves.size(), 4u);
    ASSERT_EQ(evaluations.size(), 6u);
    const int64_t epoch = saves.back() / 2;
    for (int64_t i = 0; i < 6; ++i)
        EXPECT_NEAR(static_cast<double>(evaluations[static_cast<size_t>(i)]), static_cast<double>(epoch * (i + 1)) / 3,
                    1);
    EXPECT_EQ(evaluations[2], epoch);
    EXPECT_EQ(saves[1], epoch);
    EXPECT_EQ(saves[0], (epoch + 1) / 2);
}

TEST_F(Figures, EvaluationDoesNotDependOnPacking) {
    // Weights large enough to give every token a different loss.
    const std::vector<std::string> all = {"model.initializer_range=0.5", "max_steps=1", "val_size=60",
                                          "eval_on_start=true"};
    const std::vector<std::vector<std::string>> ways = {
        {},
        {"eval_packing=false"},
        {"packing_length=200"},
        {"per_device_eval_batch_size=7"},
        {"packing_strategy=sequential", "per_device_eval_batch_size=3", "packing_length=97"}};
    std::vector<double> losses;
    for (const auto& way : ways) {
        const std::string name = fmt::format("eval-{}", losses.size());
        std::vector<std::string> arguments = all;
        arguments.insert(arguments.end(), way.begin(), way.end());
        arguments.push_back(output(name));
        train(config(), arguments);
        losses.push_back(value_at(read_log(path(name)), "eval_loss", 0));
        EXPECT_NEAR(losses.back(), losses[0], 1e-6 * losses[0]) << fmt::format("{}", fmt::join(way, " "));
    }
    EXPECT_GT(losses[0], std::log(chain_vocab) * 1.01);
}

TEST_F(Figures, PlanIsWhatHappens) {
    const std::vector<std::string> arguments = {output("run"), "num_train_epochs=2.5", "gradient_accumulation_steps=3",
                                                "logging_steps=1"};
    std::string plan;
    quietly([&] { plan = Trainer(open_session(load_config(config(), arguments))).plan(); });
    EXPECT_FALSE(fs::exists(path("run")));
    train(config(), arguments);
    const int64_t steps = last_step(path("run"));
    const Json state = read_json_file(checkpoint_folder(path("run"), steps) + "/trainer_state.json");
    const auto count = [&](const char* key) { return static_cast<int64_t>(state.at(key).get<double>()); };
    EXPECT_EQ(static_cast<double>(count("tokens_seen")), value_at(read_log(path("run")), "num_tokens", steps));
    for (const std::string& line :
         {fmt::format("\nsteps      {} steps x 3 packs", steps),
          fmt::format("\nrun        {} samples, {} tokens", count("samples_seen"), count("tokens_seen"))})
        EXPECT_NE(plan.find(line), std::string::npos) << plan << "\n  lacks: " << line;
    EXPECT_EQ(read_log(path("run")).size(), static_cast<size_t>(steps));
}

/// On a machine without a GPU too.
TEST_F(Figures, APlanForAGpuNeedsNone) {
    const std::vector<std::string> arguments = {output("run"), "device=cuda", "model.head_dim=64"};
    std::string plan;
    quietly(
        [&] { plan = Trainer(open_session(load_config(config(), arguments), one_rank(), SessionUse::plan)).plan(); });
    EXPECT_NE(plan.find("\nmemory of the GPU ("), std::string::npos) << plan;
    EXPECT_NE(plan.find("\n  tile plans "), std::string::npos) << plan;
    EXPECT_EQ(plan.find("no GPU was seen here; this is the plan for one of") != std::string::npos, !has_gpu(0)) << plan;
    const Program::Result printed =
        Program("train", {config(), arguments[0], arguments[1], arguments[2], "--plan"}).wait();
    EXPECT_EQ(printed.exit, 0) << printed.err;
    EXPECT_NE(printed.out.find("\nmemory of the GPU ("), std::string::npos) << printed.out;
    if (has_gpu(0)) return;
    expect_error(Exit::config, "device: cuda, but this ", [&] { train(config(), arguments); });
    EXPECT_FALSE(fs::exists(path("run")));
}

/// The plan of a run that never ends says what it estimates, and the first step does not wait for it.
TEST_F(Figures, ARunOfAnyLengthStartsAtOnce) {
    for (const auto& [arguments, lines] :
         {std::pair(std::vector<std::string>{"max_steps=1000000000"},
                    std::vector<std::string>{"\nsteps      1000000000 steps x 1 pack ",
                                             "\n           estimated: samples, tokens and packs are counted in the "
                                             "first 25000 epochs\n"}),
          {{"num_train_epochs=1e9"},
           {"\n           estimated: steps, samples, tokens and packs are counted in the "}}}) {
        std::vector<std::string> all = {config(), output("run"), "save_strategy=no", "logging_steps=1"};
        all.insert(all.end(), arguments.begin(), arguments.end());
        const auto start = std::chrono::steady_clock::now();
        Program program("train", all);
        EXPECT_TRUE(program.read_until("step 1/"));
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));  // minutes if all were planned
        program.send(SIGKILL);
        const Program::Result result = program.wait();
        for (const std::string& line : lines)
            EXPECT_NE(result.out.find(line), std::string::npos) << result.out << "\n  lacks: " << line;
    }
}

TEST_F(Figures, AFolderIsReadBySplitAndWeight) {
    fs::create_directories(path("data"));
    spill(path("data/train.jsonl"), chain_rows(40));
    spill(path("data/more.json"), R"([{"input_ids": [1, 10, 11]}, {"input_ids": [2], "labels": [-100]}])");
    spill(path("data/test.jsonl"), chain_rows(5));
    const std::string printed = train(config(), {output("run"), "datasets[0].path=" + path("data"),
                                                 "datasets[0].split=train", "datasets[0].weight=1.5", "max_steps=1"});
    for (const std::string& part : {"note: weights 1.5 of " + path("data") + ": 41 samples become 62\n",
                                    std::string("\ndata       train 62 samples, ")})
        EXPECT_NE(printed.find(part), std::string::npos) << printed << "\n  lacks: " << part;
}

TEST_F(Figures, LearnsWhatAUnigramModelCannot) {
    const std::vector<std::string> arguments = {output("run"), "learning_rate=0.02", "num_train_epochs=8",
                                                "val_size=0.2"};
    train(config(), arguments);
    double unigram = 0;
    quietly([&] {
        const Session session = open_session(load_config(config(), arguments));
        unigram = unigram_loss(session.train.store, session.eval.store, chain_vocab);
    });
    EXPECT_GT(unigram, 3.3);  // all 31 tokens are equally frequent
    EXPECT_LT(value_at(read_log(path("run")), "eval_loss", last_step(path("run"))), 0.2 * unigram);
}

/// 8-bit moments reach the loss of AdamW in float32 within a hundredth; Muon, with the same learning rate, is no worse.
TEST_F(Figures, OptimizersReachTheSameLoss) {
    std::map<std::string, double> losses;
    for (const std::string optim : {"adamw", "adamw_8bit", "muon"}) {
        train(config(), {output(optim), "learning_rate=0.02", "num_train_epochs=3", "val_size=0.2", "optim=" + optim});
        losses[optim] = value_at(read_log(path(optim)), "eval_loss", last_step(path(optim)));
    }
    EXPECT_LT(losses["adamw"], 0.02);
    EXPECT_NEAR(losses["adamw_8bit"], losses["adamw"], 0.01 * losses["adamw"]);
    EXPECT_LT(losses["muon"], 1.05 * losses["adamw"]);
}

TEST_F(Figures, SplitIsDisjointAndComplete) {
    quietly([&] {
        const Session whole = open_session(load_config(config(), {output("run")}));
        const TokenStore& all = whole.train.store;
        const auto places = [](const TokenStore& store) {
            std::vector<std::string> p;
            for (int64_t i = 0; i < store.size(); ++i) p.push_back(store.place(i));
            return p;
        };
        const auto by_line = [](const std::string& a, const std::string& b) {
            return a.size() != b.size() ? a.size() < b.size() : a < b;
        };
        for (const auto& [val_size, expected] : {std::pair{0.25, 40}, {7.0, 7}, {0.001, 1}, {159.0, 159}}) {
            const auto [train_part, eval_part] = split_store(all, val_size, 3);
            std::vector<std::string> train_places = places(train_part), eval_places = places(eval_part), both;
            EXPECT_EQ(eval_part.size(), expected);
            EXPECT_TRUE(std::is_sorted(train_places.begin(), train_places.end(), by_line));
            std::merge(train_places.begin(), train_places.end(), eval_places.begin(), eval_places.end(),
                       std::back_inserter(both), by_line);
            EXPECT_EQ(both, places(all));
        }
        EXPECT_NE(places(split_store(all, 7, 3).second), places(split_store(all, 7, 4).second));
        EXPECT_EQ(places(split_store(all, 7, 3).second), places(split_store(all, 7, 3).second));
        expect_error(Exit::config, "nothing is left to train on", [&] { split_store(all, 160, 3); });
    });
}

// --- Output folder ---

class OutputDir : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config("max_steps: 4\nsave_steps: 2\nsave_total_limit: 0\n");
    }
};

TEST_F(OutputDir, OfAnEarlierRunIsNotReusedSilently) {
    train(config(), {output("run")});
    const RunResult before = result_of(path("run"));
    const std::string log = slurp(path("run/metrics.jsonl"));
    expect_error(Exit::config, "already contains a run", [&] { train(config(), {output("run"), "seed=7"}); });
    expect_equal(result_of(path("run")), before, "after the refusal");
    EXPECT_EQ(slurp(path("run/metrics.jsonl")), log);

    train(config(), {output("run"), "seed=7", "max_steps=3", "overwrite_output_dir=true"});
    EXPECT_EQ(checkpoint_steps(path("run")), (std::vector<int64_t>{2, 3}));
    train(config(), {output("new"), "seed=7", "max_steps=3"});
    expect_equal(result_of(path("run")), result_of(path("new")), "overwritten");
}

TEST_F(OutputDir, WithAModelButNoCheckpointIsNotResumed) {
    train(config(), {output("run"), "save_strategy=no", "save_steps=0"});
    const std::string model = slurp(path("run/model.safetensors"));
    EXPECT_FALSE(model.empty());
    expect_error(Exit::config, "already contains a model", [&] {
        train(config(), {output("run"), "resume_from_checkpoint=auto"});
    });
    EXPECT_TRUE(slurp(path("run/model.safetensors")) == model);
}

TEST_F(OutputDir, IsKeptWhenTheNewRunCannotStart) {
    train(config(), {output("run")});
    train(config(), {output("base")});
    spill(path("base/model.safetensors"), slurp(path("base/model.safetensors")).substr(0, 5000));
    write_config("max_steps: 4\n", "tuning.yaml");
    std::string yaml = slurp(path("tuning.yaml"));
    yaml.replace(0, yaml.find("datasets:"), "model_name_or_path: " + path("base") + "\n");
    spill(path("tuning.yaml"), yaml);
    const RunResult before = result_of(path("run"));
    expect_error(Exit::data, "model.safetensors", [&] {
        train(path("tuning.yaml"), {output("run"), "overwrite_output_dir=true"});
    });
    expect_equal(result_of(path("run")), before, "after the failure");
}

TEST_F(OutputDir, HasOneRunAtATime) {
    fs::create_directories(path("run"));
    const FolderLock other(path("run"));
    expect_error(Exit::config, fmt::format("{}", getpid()), [&] { train(config(), {output("run")}); });
    EXPECT_FALSE(fs::exists(path("run/metrics.jsonl")));
}

TEST_F(OutputDir, LosesTheRemainsOfAKilledSave) {
    fs::create_directories(path("run/checkpoint-2.tmp-77/half"));
    fs::create_directories(path("run/checkpoint-1.trash-77"));
    spill(path("run/metrics.jsonl.tmp-77"), "half a line");
    train(config(), {output("run")});
    EXPECT_EQ(listing(path("run")).find("-77"), std::string::npos) << listing(path("run"));
}

}  // namespace
}  // namespace colonnade
