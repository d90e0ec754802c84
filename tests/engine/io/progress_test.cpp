// The progress line, with an injected clock and output.

#include "engine/io/progress.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "engine/device/terminal.h"

namespace colonnade {
namespace {

struct Screen {
    double now = 100;
    std::string text;

    ProgressOptions options(bool terminal, int columns = 120) {
        ProgressOptions options{
            .label = "train", .total = 200, .terminal = terminal, .colours = false, .columns = columns};
        options.clock = [this] { return now; };
        options.write = [this](std::string_view written) { text += written; };
        return options;
    }
    std::string take() { return std::exchange(text, ""); }
    /// What was drawn last, without \r and \x1b[K.
    std::string line() {
        const std::string drawn = take(), last = drawn.substr(drawn.rfind('\r') + 1);
        return last.substr(0, last.find('\x1b'));
    }
};

const ProgressFields training{{"loss 2.3123", "lr 1.00e-04", "12.3k tokens/s", "grad_norm 1.234"}, 3};

TEST(Progress, OnATerminalOneLineRedrawsItself) {
    Screen screen;
    Progress progress(screen.options(true));
    EXPECT_EQ(screen.take(), "\rtrain   0% [--------------------] 0/200 steps, - left\x1b[K");
    screen.now += 0.05;
    progress.update(1);
    EXPECT_EQ(screen.take(), "");  // too soon to draw
    screen.now += 24.95;
    progress.fields({{"loss 2.31"}, 1});
    progress.update(50);
    const std::string line =
        "\rtrain  25% [#####---------------] 50/200 steps, 1m 15s left, loss 2.31, 2.00 steps/s, 25.0 s\x1b[K";
    EXPECT_EQ(screen.take(), line);
    progress.print("eval 1.9");
    EXPECT_EQ(screen.take(), "\r\x1b[Keval 1.9\n" + line);
    progress.pause();
    EXPECT_EQ(screen.take(), "\r\x1b[K");
    screen.now += 75;
    progress.update(200);
    EXPECT_EQ(screen.take(), "");
    progress.resume();
    EXPECT_EQ(screen.line(), "train 100% [####################] 200/200 steps, loss 2.31, 2.00 steps/s, 1m 40s");
    progress.finish();
    EXPECT_TRUE(screen.take().ends_with("1m 40s\x1b[K\n"));
    progress.finish();
    EXPECT_EQ(screen.take(), "");
}

TEST(Progress, ElsewhereItPrintsPlainLinesAtIntervals) {
    Screen screen;
    Progress progress(screen.options(false));
    EXPECT_EQ(screen.take(), "train   0% 0/200 steps\n");
    std::string lines;
    for (int second = 1; second <= 35; ++second) {
        screen.now += 1;
        progress.update(second);
        lines += screen.take();
    }
    EXPECT_EQ(lines,
              "train   5% 10/200 steps, 3m 10s left, 1.00 steps/s, 10.0 s\n"
              "train  10% 20/200 steps, 3m 00s left, 1.00 steps/s, 20.0 s\n"
              "train  15% 30/200 steps, 2m 50s left, 1.00 steps/s, 30.0 s\n");
    progress.print("eval 1.9");
    EXPECT_EQ(screen.take(), "eval 1.9\n");
    progress.print("step 35/200", training);
    EXPECT_EQ(screen.take(), "step 35/200: loss 2.3123, lr 1.00e-04, 12.3k tokens/s, grad_norm 1.234\n");
    progress.finish();
    EXPECT_EQ(screen.take(), "train  17% 35/200 steps, 2m 45s left, 1.00 steps/s, 35.0 s\n");
}

TEST(Progress, TheBarShrinksBeforeFieldsAreLeftOutFromTheEnd) {
    const std::pair<int, const char*> cases[] = {
        {152,
         "train  25% [#####---------------] 50/200 steps, 3m 00s left, loss 2.3123, lr 1.00e-04, "
         "12.3k tokens/s, grad_norm 1.234, 1.2 s per step, 1m 00s"},
        {132,
         "train  25% [#------] 50/200 steps, 3m 00s left, loss 2.3123, lr 1.00e-04, 12.3k tokens/s, "
         "grad_norm 1.234, 1.2 s per step, 1m 00s"},
        {127,
         "train  25% 50/200 steps, 3m 00s left, loss 2.3123, lr 1.00e-04, 12.3k tokens/s, grad_norm 1.234, 1.2 s "
         "per step, 1m 00s"},
        {112,
         "train  25% [##---------] 50/200 steps, 3m 00s left, loss 2.3123, lr 1.00e-04, 12.3k tokens/s, "
         "grad_norm 1.234"},
        {102, "train  25% 50/200 steps, 3m 00s left, loss 2.3123, lr 1.00e-04, 12.3k tokens/s, grad_norm 1.234"},
        {82, "train  25% 50/200 steps, 3m 00s left, loss 2.3123, lr 1.00e-04, 12.3k tokens/s"},
        {80, "train [#------] 50/200, 3m 00s left, loss 2.3123, lr 1.00e-04, 12.3k tokens/s"},
        {61, "train 50/200, 3m 00s left, loss 2.3123, lr 1.00e-04"},
        {32, "train 50/200, 3m 00s left"},
        {12, "train 50/"},
    };
    for (const auto& [columns, expected] : cases) {
        Screen screen;
        Progress progress(screen.options(true, columns));
        progress.fields(training);
        screen.now += 60;
        screen.take();
        progress.update(50);
        EXPECT_EQ(screen.line(), expected) << columns;
    }
}

/// At 80 columns, for any step, rate and time left.
TEST(Progress, AtEightyColumnsTheFiguresOfARunAreThere) {
    for (const double total : {1.0, 77.0, 999999.0})
        for (const double share : {0.0, 0.001, 0.5, 0.9999})
            for (const double seconds : {0.01, 5.0, 59.0, 4000.0, 500000.0}) {
                Screen screen;
                ProgressOptions options = screen.options(true, 80);
                options.total = total;
                options.fields = training;
                Progress progress(options);
                screen.take();
                screen.now += seconds;
                progress.update(std::floor(total * share));
                progress.resume();  // draws
                const std::string line = screen.line();
                EXPECT_LE(line.size(), 79u) << line;
                for (const char* field : {" left, ", "loss 2.3123", "lr 1.00e-04", "12.3k tokens/s"})
                    EXPECT_NE(line.find(field), std::string::npos) << line;
            }
}

TEST(Progress, NeverFillsTheWidthOfTheTerminal) {
    for (int columns = 2; columns <= 80; ++columns) {
        Screen screen;
        auto options = screen.options(true, columns);
        options.label = "Größe über 列";
        Progress progress(options);
        screen.now += 50;
        screen.take();
        progress.update(100);
        const std::string line = screen.line();
        EXPECT_LT(display_width(line), static_cast<size_t>(columns)) << line;
        EXPECT_TRUE(options.label.starts_with(line) || line.starts_with(options.label)) << "a character is cut";
    }
}

/// Between updates, during a long step, the time left runs on.
TEST(Progress, TheTimeLeftRunsOn) {
    Screen screen;
    Progress progress(screen.options(true, 80));
    screen.now += 50;
    progress.update(50);
    screen.now += 20;
    screen.take();
    progress.resume();
    EXPECT_NE(screen.take().find(" 50/200 steps, 2m 10s left, "), std::string::npos);
    screen.now += 1000;
    progress.resume();
    EXPECT_NE(screen.take().find(" 50/200 steps, 0 s left, "), std::string::npos);
}

TEST(Progress, AThreadRedrawsItDuringALongStep) {
    std::atomic<int> drawn = 0, asked = 0;
    ProgressOptions options{.label = "saving", .total = 200, .unit = "B", .terminal = true, .colours = false};
    options.columns = 60;
    options.done = [&] { return ++asked; };
    options.write = [&](std::string_view) { ++drawn; };
    Progress progress(options);
    progress.update(1);
    for (int i = 0; drawn < 4 && i < 1000; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_GE(drawn, 4);
    progress.finish();
    EXPECT_GE(asked, 4);
}

TEST(Progress, LinesAboveItFitTheTerminal) {
    Screen screen;
    Progress progress(screen.options(true, 40));
    screen.take();
    progress.print("warning: a line of more columns than the terminal has");
    EXPECT_TRUE(screen.take().starts_with("\r\x1b[Kwarning: a line of more columns than\n    the terminal has\n\r"));
    progress.print("step 35/200", training);
    EXPECT_TRUE(screen.take().starts_with("\r\x1b[Kstep 35/200: loss 2.3123, lr 1.00e-04\n\r"));
}

TEST(Progress, OnATerminalFiguresAreBold) {
    Screen screen;
    ProgressOptions options = screen.options(true, 60);
    options.colours = true;
    Progress progress(options);
    screen.take();
    progress.print("warning: hot");
    EXPECT_TRUE(screen.take().starts_with("\r\x1b[K\x1b[33mwarning:\x1b[0m hot\n"));
    progress.print("step 35/200", {{"loss 2.3"}, 1});
    EXPECT_TRUE(screen.take().starts_with(
        "\r\x1b[K\x1b[2mstep \x1b[0m\x1b[1m35/200: \x1b[0m\x1b[2mloss \x1b[0m\x1b[1m2.3\x1b[0m\n"));
}

TEST(Progress, AnotherOneTakesItsPlace) {
    for (const bool terminal : {true, false}) {
        Screen screen;
        ProgressOptions options = screen.options(terminal, 60);
        options.passing = true;
        options.label = "eval";
        {
            Progress progress(options);
            screen.now += 1;
            progress.update(20);
            EXPECT_EQ(screen.take().find("eval  10%") != std::string::npos, terminal);
            screen.now += 10;
            progress.update(100);
            EXPECT_NE(screen.take().find("eval  50%"), std::string::npos);
        }
        EXPECT_EQ(screen.take(), terminal ? "\r\x1b[K" : "");
    }
}

TEST(Progress, ResumedWorkIsNotPartOfTheRate) {
    Screen screen;
    auto options = screen.options(false);
    options.initial = 100;
    Progress progress(options);
    EXPECT_EQ(screen.take(), "train  50% 100/200 steps\n");
    screen.now += 20;
    progress.update(110);
    EXPECT_EQ(screen.take(), "train  55% 110/200 steps, 3m 00s left, 2.0 s per step, 20.0 s\n");
}

TEST(Progress, BytesAndUnknownTotals) {
    Screen screen;
    auto options = screen.options(false);
    options.unit = "B";
    options.total = 0;
    Progress progress(options);
    screen.take();
    screen.now += 10;
    progress.update(30 * 1024 * 1024);
    EXPECT_EQ(screen.take(), "train 30.0 MiB, 3.00 MiB/s, 10.0 s\n");
}

TEST(Progress, AnErrorStartsOnItsOwnLine) {
    Screen screen;
    { const Progress progress(screen.options(true)); }
    EXPECT_TRUE(screen.text.ends_with("\x1b[K\n"));
}

}  // namespace
}  // namespace colonnade
