// Saves of a whole run: in the background or not, the same files; one at a time; an error ends the run at the next step.

#include <sys/resource.h>

#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class Saves : public RunTest {
  protected:
    /// The steps of the lines "saving ..." and "saved ..." that a run printed, the latter negative.
    static std::vector<int64_t> save_lines(const std::string& printed) {
        std::vector<int64_t> steps;
        std::istringstream lines(printed);
        for (std::string line; std::getline(lines, line);) {
            const size_t name = line.find("checkpoint-");
            const bool begins = line.starts_with("saving "), ends = line.starts_with("saved ");
            if (begins || ends) steps.push_back((begins ? 1 : -1) * std::stoll(line.substr(name + 11)));
        }
        return steps;
    }
};

TEST_F(Saves, InTheBackgroundAreTheSame) {
    write_config("max_steps: 12\nsave_steps: 1\nsave_total_limit: 0\nlearning_rate: 0.01\nlogging_steps: 1\n");
    const std::string beside = train(config(), {output("beside"), "async_save=true"}),
                      between = train(config(), {output("between"), "async_save=false"});
    const RunResult result = result_of(path("beside"));
    EXPECT_FALSE(result.state.empty());
    EXPECT_TRUE(result == result_of(path("between")));
    for (int64_t step = 1; step <= 12; ++step)
        for (const auto& file : fs::directory_iterator(checkpoint_folder(path("beside"), step))) {
            const std::string name = file.path().filename();
            if (name == "config.yaml" || name == "manifest.json") continue;  // they differ in async_save
            EXPECT_TRUE(slurp(file.path()) == slurp(checkpoint_folder(path("between"), step) + "/" + name))
                << file.path();
        }
    // A save begins only when the former is committed, and the run ends when the last one is.
    std::vector<int64_t> alternating, committed;
    for (int64_t step = 1; step <= 12; ++step) {
        alternating.insert(alternating.end(), {step, -step});
        committed.push_back(-step);
    }
    EXPECT_EQ(save_lines(beside), alternating) << beside;
    EXPECT_EQ(save_lines(between), committed) << between;
}

/// A checkpoint that is exported has the files that `export` writes of it, and trains on as any other.
TEST_F(Saves, MayBeHuggingFaceFolders) {
    write_config("max_steps: 6\nsave_steps: 2\nsave_total_limit: 0\nlearning_rate: 0.01\nlogging_steps: 1\n");
    train(config(), {output("plain")});
    for (const char* setting : {"async_save=true", "async_save=false"}) {
        const std::string run = std::string("run ") + setting;
        train(config(), {output(run), setting, "export_checkpoints=true"});
        expect_equal(result_of(path(run)), result_of(path("plain")), setting);
        for (const int64_t step : {2, 4, 6}) {
            const std::string folder = checkpoint_folder(path(run), step), out = path(fmt::format("{} {}", run, step));
            EXPECT_EQ(damage_of(folder), "");
            EXPECT_EQ(Program("export", {folder, out}).wait().exit, 0);
            for (const char* file : {"model.safetensors", "config.json", "generation_config.json"})
                EXPECT_TRUE(slurp(folder + "/" + file) == slurp(out + "/" + file)) << folder << ' ' << file;
        }
        fs::remove_all(checkpoint_folder(path(run), 6));
        fs::remove(path(run) + "/config.json");
        train(config(), {output(run), setting, "export_checkpoints=true", "resume_from_checkpoint=auto"});
        expect_equal(result_of(path(run)), result_of(path("plain")), "resumed");
    }
    // The whole of it is verified.
    std::string file = checkpoint_folder(path("run async_save=true"), 4) + "/model.safetensors", bytes = slurp(file);
    bytes.back() ^= 1;
    spill(file, bytes);
    EXPECT_NE(damage_of(checkpoint_folder(path("run async_save=true"), 4)), "");
}

TEST_F(Saves, ThePlanShowsTheCopy) {
    const auto plan = [&](const std::string& setting) {
        std::string text;
        quietly([&] { text = Trainer(open_session(load_config(config(), {output("run"), setting}))).plan(); });
        return text;
    };
    for (const char* setting : {"async_save=auto", "async_save=true"}) {
        const std::string text = plan(setting);
        EXPECT_NE(text.find("\n  copy for saves (host)"), std::string::npos) << text;
        EXPECT_EQ(text.find("\nsaves "), std::string::npos) << text;
    }
    const std::string off = plan("async_save=false");
    EXPECT_EQ(off.find("copy for saves"), std::string::npos) << off;
    EXPECT_NE(off.find("\nsaves      the run waits until each is written (async_save: false)"), std::string::npos)
        << off;
    EXPECT_EQ(plan("save_strategy=no").find("saves"), std::string::npos);
}

TEST_F(Saves, InTheBackgroundNeedMemory) {
    const auto plan = [&](const std::string& setting, size_t available) {
        SavePlan found;
        quietly([&] {
            found = plan_saves(open_session(load_config(config(), {output("run"), setting})), one_rank(), available);
        });
        return found;
    };
    const SavePlan rich = plan("async_save=auto", size_t{1} << 40), poor = plan("async_save=auto", 1000);
    EXPECT_TRUE(rich.background && rich.text.empty());
    train(config(), {output("run"), "max_steps=1"});
    const ModelConfig model = checkpoint_model({checkpoint_folder(path("run"), 1)});
    EXPECT_EQ(rich.copy_bytes, static_cast<size_t>(12 * ParameterList(model).size()));
    EXPECT_FALSE(poor.background);
    EXPECT_NE(poor.text.find("would take more than half of the 0 B of host memory left"), std::string::npos)
        << poor.text;
    EXPECT_TRUE(plan("async_save=true", 1000).background);
}

TEST_F(Saves, AFullDiskEndsTheRunAtTheNextStep) {
    write_config("max_steps: 2000\nsave_steps: 20\nsave_total_limit: 0\nlogging_steps: 1\n");
    Program program("train", {config(), output("run"), "async_save=true"});
    ASSERT_TRUE(program.read_until("saved " + path("run/checkpoint-40")));
    const rlimit limit{60'000, 60'000};  // more than the log, less than a checkpoint
    ASSERT_EQ(prlimit(program.pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
    const Program::Result result = program.wait();
    EXPECT_EQ(result.exit, static_cast<int>(Exit::storage)) << result.err;
    EXPECT_NE(result.err.find("\ntrain: error: " + path("run/checkpoint-")), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("File too large"), std::string::npos) << result.err;
    const std::vector<int64_t> steps = checkpoint_steps(path("run"));
    ASSERT_FALSE(steps.empty());
    EXPECT_GE(steps.back(), 40);
    EXPECT_LT(steps.back(), 2000);
    EXPECT_EQ(listing(path("run")).find(".tmp-"), std::string::npos) << listing(path("run"));
    // The run ended long before the next save.
    const size_t last = result.err.rfind("\nstep ");
    ASSERT_NE(last, std::string::npos);
    EXPECT_LE(std::stoll(result.err.substr(last + 6)), steps.back() + 2 * 20) << result.err;
    EXPECT_EQ(run("train", {config(), output("run"), "resume_from_checkpoint=auto", "max_steps=100"}).exit, 0);
    EXPECT_EQ(checkpoint_steps(path("run")).back(), 100);
}

}  // namespace
}  // namespace colonnade
