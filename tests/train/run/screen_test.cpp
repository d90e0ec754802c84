// What people see: `train` and `prepare` on a pseudo-terminal, read by a model of its screen, and in a pipe.

#include <set>

#include "tests/support/screen_model.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

using Size = ProgramOnTerminal::Size;

class ScreenTest : public RunTest {
  protected:
    /// Steps of some 50 ms, of four micro-steps each.
    std::vector<std::string> arguments(const std::string& name) const {
        return {"config.yaml",
                "datasets[0].path=train.jsonl",
                "prepared_path=prepared",
                "output_dir=" + name,
                "model.hidden_size=64",
                "model.intermediate_size=256",
                "packing_length=512",
                "max_length=64",
                "gradient_accumulation_steps=4",
                "num_train_epochs=0",
                "max_steps=60",
                "logging_steps=5",
                "val_size=0.2",
                "eval_strategy=steps",
                "eval_steps=20",
                "save_strategy=steps",
                "save_steps=30"};
    }
};

/// Fields that every drawing of the line of progress must have.
void expect_fields(const std::string& line) {
    if (!line.starts_with("train ")) return;
    for (const char* field : {" left", ", loss ", ", lr ", " tokens/s"})
        EXPECT_NE(line.find(field), line.npos) << "'" << line << "' lacks" << field;
}

TEST_F(ScreenTest, AllFieldsAreVisibleAtAllTimes) {
    for (const Size size : {Size{80, 24}, Size{200, 50}}) {
        const std::string name = fmt::format("run-{}", size.columns);
        ProgramOnTerminal program("train", arguments(name), size, folder_);
        size_t drawn = 0;
        std::vector<std::string> evals;
        program.screen.on_erase = [&](const std::string& line) {
            if (line.find(" 60/60") != line.npos) return;  // nothing is left
            drawn += line.starts_with("train ");
            expect_fields(line);
            if (line.starts_with("eval ")) evals.push_back(line);
        };
        EXPECT_EQ(program.wait(), 0);
        const ScreenModel& screen = program.screen;
        EXPECT_EQ(screen.wraps, 0u) << screen.text();
        EXPECT_GT(drawn, 10u);
        for (const int step : {1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60})
            EXPECT_EQ(screen.lines_with(fmt::format("step {}/60: loss ", step)), 1u) << step;
        EXPECT_EQ(screen.lines_with("eval at step 20: loss "), 1u);
        ASSERT_FALSE(evals.empty());
        EXPECT_TRUE(evals[0].starts_with("eval   0% [") && evals[0].find("batches, - left") != std::string::npos)
            << evals[0];
        EXPECT_FALSE(screen.shows("batches")) << "a line of progress of an evaluation stays";
        EXPECT_TRUE(screen.shows("loss, o eval_loss"));
        EXPECT_GT(screen.colour_codes, 50u);
        size_t widest = 0;
        for (const std::string& line : screen.lines) widest = std::max(widest, display_width(line));
        EXPECT_GE(widest, size.columns - 1u);  // the curve
        EXPECT_TRUE(screen.shows("max_steps: 60"));
        EXPECT_FALSE(screen.shows("adam_beta1")) << "a default is shown";
    }
}

TEST_F(ScreenTest, ANewWidthIsFollowed) {
    ProgramOnTerminal program("train", arguments("run"), {200, 50}, folder_);
    ASSERT_TRUE(program.read_until("step 5/60"));
    program.resize({80, 24});
    size_t drawn = 0;
    program.screen.on_erase = [&](const std::string& line) {
        // What was on its way is as wide as before.
        drawn += line.starts_with("train ");
        EXPECT_TRUE(drawn <= 2 || display_width(line) < 80) << line;
    };
    ASSERT_TRUE(program.read_until([&] { return drawn > 6; }));
}

TEST_F(ScreenTest, ColoursCanBeTurnedOff) {
    for (const auto& [variables, colours] :
         {std::pair<std::vector<std::pair<std::string, std::string>>, bool>{{{"NO_COLOR", "1"}}, false}, {{}, true}}) {
        ProgramOnTerminal program("prepare", arguments("run"), {200, 50}, folder_, variables);
        EXPECT_EQ(program.wait(), 0);
        EXPECT_EQ(program.screen.colour_codes > 0, colours);
        EXPECT_EQ(program.screen.shows("what is learned is underlined"), colours);
        EXPECT_EQ(program.screen.shows("what is learned is in [brackets]"), !colours);
        EXPECT_EQ(program.screen.wraps, 0u) << program.screen.text();
    }
}

TEST_F(ScreenTest, PipedOutputIsPlain) {
    setenv("TERM", "xterm-256color", 1);
    for (const char* locale : {"C", "C.UTF-8"}) {
        setenv("LC_ALL", locale, 1);
        const std::string name = fmt::format("piped-{}", locale);
        const Program::Result result = run("train", arguments(name), [&] { ASSERT_EQ(chdir(folder_.c_str()), 0); });
        EXPECT_EQ(result.exit, 0) << result.err;
        for (const std::string* text : {&result.out, &result.err}) {
            EXPECT_EQ(text->find_first_of("\x1b\r"), text->npos) << *text;
            EXPECT_EQ(text->find("[#"), text->npos) << *text;
        }
        EXPECT_NE(result.err.find("\nstep 5/60: loss "), std::string::npos) << result.err;
        EXPECT_NE(result.err.find("\neval at step 20: loss "), std::string::npos) << result.err;
        const bool ascii = std::ranges::all_of(result.out, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
        EXPECT_TRUE(ascii) << result.out;
    }
    unsetenv("LC_ALL");
}

/// A step of several seconds, in one micro-step: of the CPU, whatever the machine has.
class SlowStep : public ScreenTest {
  protected:
    std::vector<std::string> slow_arguments() const {
        std::vector<std::string> all = arguments("slow");
        all.insert(all.end(),
                   {"device=cpu", "model.hidden_size=384", "model.intermediate_size=2048", "model.num_hidden_layers=8",
                    "packing_length=1600", "gradient_accumulation_steps=1", "max_steps=3"});
        return all;
    }
    /// Whether Ctrl-C shows the answer before the work that is under way, which shows `after` at its end.
    static bool answers(ProgramOnTerminal& program, const std::string& answer, const std::string& after) {
        program.type("\x03");
        program.read_until([&] { return program.screen.shows(answer) || program.screen.shows(after); });
        return program.screen.shows(answer) && !program.screen.shows(after);
    }
};

TEST_F(SlowStep, MicroStepsMoveTheBar) {
    std::vector<std::string> all = slow_arguments();
    all.insert(all.end(), {"gradient_accumulation_steps=4", "packing_length=400", "max_steps=1"});
    ProgramOnTerminal program("train", all, {80, 24}, folder_);
    std::set<std::string> shown;
    program.screen.on_erase = [&](const std::string& line) {
        if (line.find(" 0/1 ") != line.npos) shown.insert(line.substr(0, line.find(" 0/1 ")));
    };
    EXPECT_EQ(program.wait(), 0);
    // The line is drawn ten times a second at most: a short micro-step may be missed.
    const auto was_shown = [&](const char* share) {
        return std::ranges::any_of(shown, [&](const auto& line) { return line.starts_with(share); });
    };
    EXPECT_TRUE(was_shown("train   0%"));
    EXPECT_TRUE(was_shown("train  22%") || was_shown("train  44%") || was_shown("train  66%"));
}

TEST_F(SlowStep, CtrlCIsAnsweredAtOnce) {
    ProgramOnTerminal program("train", slow_arguments(), {80, 24}, folder_);
    ASSERT_TRUE(program.read_until("lr "));
    program.read_until([] { return false; }, 0.3);
    ASSERT_FALSE(program.screen.shows("step 1/3")) << "the step is too short for this test";
    EXPECT_TRUE(answers(program, "will save and stop after this step; Ctrl-C again stops unsaved", "step 1/3"));
    EXPECT_TRUE(answers(program, "stopped at once, without a checkpoint: 0 steps are lost", "step 1/3"));
    EXPECT_EQ(program.wait(), 128 + SIGINT);
    EXPECT_EQ(program.screen.wraps, 0u) << program.screen.text();
    EXPECT_EQ(last_step(path("slow")), 0);
}

TEST_F(SlowStep, CtrlCSavesAfterTheStep) {
    ProgramOnTerminal program("train", slow_arguments(), {80, 24}, folder_);
    ASSERT_TRUE(program.read_until("step 1/3"));
    program.read_until([] { return false; }, 0.3);
    EXPECT_TRUE(answers(program, "will save and stop after this step (about ", "saving"));
    EXPECT_EQ(program.wait(), 0);
    EXPECT_TRUE(program.screen.shows("stopped by SIGINT after step 2 of 3"));
    EXPECT_EQ(program.screen.wraps, 0u) << program.screen.text();
    EXPECT_EQ(last_step(path("slow")), 2);
}

/// An evaluation that was begun ends, and the run stops behind it.
TEST_F(SlowStep, CtrlCDuringAnEvaluation) {
    std::vector<std::string> all = slow_arguments();
    all.insert(all.end(), {"eval_steps=1", "val_size=0.6"});
    ProgramOnTerminal program("train", all, {80, 24}, folder_);
    ASSERT_TRUE(program.read_until("/2 batches, "));
    EXPECT_TRUE(answers(program, "will save and stop after this evaluation", "eval at step"));
    EXPECT_EQ(program.wait(), 0);
    EXPECT_TRUE(program.screen.shows("eval at step 1: loss ")) << program.screen.text();
    EXPECT_TRUE(program.screen.shows("stopped by SIGINT after step 1 of 3"));
    EXPECT_EQ(program.screen.wraps, 0u) << program.screen.text();
    EXPECT_EQ(last_step(path("slow")), 1);
}

}  // namespace
}  // namespace colonnade
