// The progress line, with an injected clock and output.

#include "engine/io/progress.h"

#include <gtest/gtest.h>

#include <utility>

namespace colonnade {
namespace {

struct Screen {
    double now = 100;
    std::string text;

    ProgressOptions options(bool terminal) {
        ProgressOptions options{.label = "train", .total = 200, .terminal = terminal, .columns = 100};
        options.clock = [this] { return now; };
        options.write = [this](std::string_view written) { text += written; };
        return options;
    }
    std::string take() { return std::exchange(text, ""); }
};

TEST(Progress, OnATerminalOneLineRedrawsItself) {
    Screen screen;
    Progress progress(screen.options(true));
    EXPECT_EQ(screen.take(), "\rtrain   0% [--------------------] 0/200 steps\x1b[K");
    screen.now += 0.05;
    progress.update(1);
    EXPECT_EQ(screen.take(), "");  // too soon to draw
    screen.now += 24.95;
    progress.suffix("loss 2.31");
    progress.update(50);
    EXPECT_EQ(screen.take(),
              "\rtrain  25% [#####---------------] 50/200 steps, 2.00 steps/s, 25.0 s, 1m 15s left, loss 2.31\x1b[K");
    progress.print("eval 1.9");
    EXPECT_EQ(screen.take(),
              "\r\x1b[Keval 1.9\n\rtrain  25% [#####---------------] 50/200 steps, 2.00 steps/s, 25.0 s, 1m 15s left, "
              "loss 2.31\x1b[K");
    screen.now += 75;
    progress.update(200);
    screen.take();
    progress.finish();
    EXPECT_EQ(screen.take(),
              "\rtrain 100% [####################] 200/200 steps, 2.00 steps/s, 1m 40s, loss 2.31\x1b[K\n");
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
              "train   5% 10/200 steps, 1.00 steps/s, 10.0 s, 3m 10s left\n"
              "train  10% 20/200 steps, 1.00 steps/s, 20.0 s, 3m 00s left\n"
              "train  15% 30/200 steps, 1.00 steps/s, 30.0 s, 2m 50s left\n");
    progress.print("eval 1.9");
    EXPECT_EQ(screen.take(), "eval 1.9\n");
    progress.finish();
    EXPECT_EQ(screen.take(), "train  17% 35/200 steps, 1.00 steps/s, 35.0 s, 2m 45s left\n");
}

TEST(Progress, NeverFillsTheWidthOfTheTerminal) {
    for (int columns = 2; columns <= 80; ++columns) {
        Screen screen;
        auto options = screen.options(true);
        options.columns = columns;
        Progress progress(options);
        progress.suffix("Größe über Äpfel");
        screen.now += 50;
        screen.take();
        progress.update(100);
        std::string line = screen.take();
        line = line.substr(1, line.size() - 4);  // without \r and \x1b[K
        EXPECT_LT(line.size(), static_cast<size_t>(columns));
        // Not cut inside a character: every leading byte has its continuation.
        for (size_t i = 0; i < line.size(); ++i) {
            if (static_cast<unsigned char>(line[i]) == 0xC3) {
                ASSERT_LT(i + 1, line.size());
                EXPECT_EQ(static_cast<unsigned char>(line[i + 1]) & 0xC0, 0x80);
            }
        }
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
    EXPECT_EQ(screen.take(), "train  55% 110/200 steps, 2.0 s per step, 20.0 s, 3m 00s left\n");
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
