#include "engine/device/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <map>
#include <string>

namespace colonnade {
namespace {

/// A pseudo-terminal, and the environment variables that matter, set anew.
class TerminalTest : public testing::Test {
  protected:
    TerminalTest() {
        set({{"TERM", "xterm"}});
        master_ = posix_openpt(O_RDWR | O_NOCTTY);
        EXPECT_EQ(grantpt(master_), 0);
        EXPECT_EQ(unlockpt(master_), 0);
        terminal_ = open(ptsname(master_), O_RDWR | O_NOCTTY);
        file_ = open("/dev/null", O_WRONLY);
        EXPECT_FALSE(is_terminal(terminal_)) << "without a width";
        set_columns(80);
    }
    ~TerminalTest() override {
        for (const int descriptor : {file_, terminal_, master_}) close(descriptor);
    }
    void set_columns(unsigned short columns) const {
        const winsize size{50, columns, 0, 0};
        EXPECT_EQ(ioctl(master_, TIOCSWINSZ, &size), 0);
    }
    static void set(std::map<std::string, std::string> variables) {
        for (const char* name : {"TERM", "NO_COLOR", "CLICOLOR_FORCE", "LC_ALL", "LC_CTYPE", "LANG"}) {
            unsetenv(name);
            if (variables.contains(name)) setenv(name, variables[name].c_str(), 1);
        }
    }
    int master_, terminal_, file_;
};

TEST_F(TerminalTest, ColoursFollowTheEnvironment) {
    const struct {
        std::map<std::string, std::string> variables;
        bool redraws, colours, colours_in_file;
    } cases[] = {
        {{{"TERM", "xterm"}}, true, true, false},
        {{}, false, false, false},
        {{{"TERM", "dumb"}}, false, false, false},
        {{{"TERM", "xterm"}, {"NO_COLOR", "1"}}, true, false, false},
        {{{"TERM", "xterm"}, {"NO_COLOR", ""}}, true, true, false},
        {{{"TERM", "xterm"}, {"CLICOLOR_FORCE", "1"}}, true, true, true},
        {{{"TERM", "xterm"}, {"CLICOLOR_FORCE", "0"}}, true, true, false},
        {{{"TERM", "xterm"}, {"CLICOLOR_FORCE", "1"}, {"NO_COLOR", "1"}}, true, false, false},
    };
    for (const auto& c : cases) {
        set(c.variables);
        EXPECT_EQ(is_terminal(terminal_), c.redraws);
        EXPECT_EQ(has_colours(terminal_), c.colours);
        EXPECT_EQ(has_colours(file_), c.colours_in_file);
        EXPECT_FALSE(is_terminal(file_));
    }
}

TEST_F(TerminalTest, TheWidthIsThatOfNow) {
    for (const unsigned short columns : {33, 200}) {
        set_columns(columns);
        EXPECT_EQ(terminal_columns(terminal_), columns);
    }
    EXPECT_EQ(terminal_columns(file_), 80u);
}

TEST_F(TerminalTest, TheLocaleTellsWhetherTextIsUtf8) {
    EXPECT_FALSE(has_utf8());
    set({{"LANG", "en_US.UTF-8"}});
    EXPECT_TRUE(has_utf8());
    set({{"LANG", "C.utf8"}});
    EXPECT_TRUE(has_utf8());
    set({{"LANG", "en_US.UTF-8"}, {"LC_ALL", "C"}});
    EXPECT_FALSE(has_utf8());
    set({{"LANG", "C"}, {"LC_CTYPE", "de_DE.UTF-8"}, {"LC_ALL", ""}});
    EXPECT_TRUE(has_utf8());
}

TEST(TerminalText, ColumnsOfCharacters) {
    EXPECT_EQ(display_width("ab"), 2u);
    EXPECT_EQ(display_width("größe"), 5u);
    EXPECT_EQ(display_width("列車"), 4u);
    EXPECT_EQ(display_width(styled("ab", Style::bold)), 2u);
    EXPECT_EQ(display_width("\xff\xe5"), 2u);  // not UTF-8
    EXPECT_EQ(bytes_within("a列車", 3), 4u);
    EXPECT_EQ(bytes_within("a列車", 4), 4u);
}

TEST(TerminalText, LinesBreakAtSpaces) {
    const struct {
        const char *text, *expected;
        size_t columns, indent;
    } cases[] = {
        {"one two three four", "one two\n  three\n  four", 7, 2},
        {"one two", "one two", 7, 2},
        {"name       a long line of words\nnext", "name       a long line\n           of words\nnext", 23, 11},
        {"abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz", 10, 1},
        {"    abcdefghijklmnopqrst  uv", "    abcdefghijklmnopqrst\n   uv", 16, 3},
        {"列車列車 列車", "列車列車\n列車", 8, 0},
        {"curves   /tmp/folder/loss.png and", "curves   /tmp/folder/loss.png\n         and", 20, 9},
        {"a b", "a\nb", 1, 5},
        {"", "", 10, 0},
    };
    for (const auto& c : cases) EXPECT_EQ(wrapped(c.text, c.columns, c.indent), c.expected) << c.text;
    const std::string painted = styled("three", Style::underline) + " " + styled("four", Style::underline);
    EXPECT_EQ(wrapped(painted, 8, 0), styled("three", Style::underline) + "\n" + styled("four", Style::underline));
}

TEST(TerminalText, FiguresAreBoldAndWordsDim) {
    EXPECT_EQ(bold_figures("loss 2.31, nan, -1 s left"),
              "\x1b[2mloss \x1b[0m\x1b[1m2.31, nan, -1 \x1b[0m\x1b[2ms left\x1b[0m");
    EXPECT_EQ(bold_figures(""), "");
}

}  // namespace
}  // namespace colonnade
