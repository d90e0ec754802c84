// The program `colonnade` from a user's shell: commands, help, wrong words, the links of the build tree, the manual page.

#include "train/program/commands.h"

#include <fmt/ranges.h>

#include <sstream>

#include "engine/device/version.h"
#include "engine/program/help.h"
#include "tests/support/file_test.h"
#include "tests/support/program.h"
#include "train/config/keys.h"

namespace colonnade {
namespace {

Program::Result colonnade(const std::vector<std::string>& words) {
    return run("colonnade", words);
}

std::vector<std::string> words_of(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> words;
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// A help page that a terminal of 80 columns shows whole, and that has none of CLI11's own words.
void expect_readable(const std::string& page, const std::string& of) {
    std::istringstream lines(page);
    for (std::string line; std::getline(lines, line);) {
        EXPECT_LE(line.size(), help_width) << of << ": " << line;
        EXPECT_FALSE(line.ends_with(' ')) << of << ": " << line;
    }
    for (const char* word : {"ENUM", "UINT", "REQUIRED", "Excludes", " in [", "[[", "{a", "->"})
        EXPECT_FALSE(has(page, word)) << of << ": " << word << "\n" << page;
}

TEST(Commands, EveryOneHasHelpAndAVersion) {
    for (const Command& command : commands()) {
        const std::string name = command.name;
        std::vector<std::string> words = words_of(name);
        words.push_back("--help");
        const Program::Result help = colonnade(words);
        EXPECT_EQ(help.exit, 0) << name << help.err;
        EXPECT_TRUE(help.out.starts_with("Usage: colonnade " + name + " [options]")) << help.out;
        EXPECT_TRUE(has(help.out, command.summary)) << help.out;
        expect_readable(help.out, name);
        words.back() = "--version";
        EXPECT_TRUE(colonnade(words).out.starts_with("colonnade " + name + " " COLONNADE_VERSION)) << name;
        std::vector<std::string> asked = {"help"};
        asked.insert(asked.end(), words.begin(), words.end() - 1);
        EXPECT_EQ(colonnade(asked).out, help.out) << name;
    }
}

TEST(Commands, TheProgramListsThemOnOneScreen) {
    const std::string page = colonnade({}).out;
    for (const auto& words : {std::vector<std::string>{"--help"}, {"-h"}, {"help"}})
        EXPECT_EQ(colonnade(words).out, page) << words[0];
    expect_readable(page, "colonnade");
    EXPECT_LE(std::count(page.begin(), page.end(), '\n'), 24);
    for (const Command& command : commands()) {
        const std::string name = command.name;
        EXPECT_EQ(has(page, "  " + name.substr(0, name.find(' ')) + " "), !command.hidden) << name;
    }
    const std::string family = colonnade({"help", "bench"}).out;
    EXPECT_EQ(colonnade({"bench", "--help"}).out, family);
    for (const Command* command : commands_of("bench")) EXPECT_TRUE(has(family, command->summary)) << family;
    EXPECT_TRUE(colonnade({"--version"}).out.starts_with("colonnade " COLONNADE_VERSION));
}

TEST(Commands, WrongWordsGetTheNearestName) {
    const std::pair<std::vector<std::string>, const char*> cases[] = {
        {{"tran", "my.yaml"}, "no command 'tran' (did you mean 'train'?)"},
        {{"help", "exprot"}, "no command 'exprot' (did you mean 'export'?)"},
        {{"bench", "stepp"}, "bench has no 'stepp': expected one of step, generate"},
        {{"bench", "stepp"}, "(did you mean 'bench step'?)"},
        {{"bench"}, "bench: expected one of step"},
        {{"train_tokenizer"}, "(it is 'colonnade tokenizer train')"},
        {{"runs/my.yaml", "x=1"}, "to train: colonnade train runs/my.yaml x=1"},
        {{"--nothing"}, "no command '--nothing'; colonnade --help lists them"},
        {{"chat", "--nothing", "m"}, "--nothing (see colonnade chat --help)"},
    };
    for (const auto& [words, message] : cases) {
        const Program::Result result = colonnade(words);
        EXPECT_EQ(result.exit, 2) << words[0];
        EXPECT_TRUE(result.err.starts_with("colonnade") && has(result.err, message)) << result.err;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    }
}

TEST(Commands, LinksOfTheBuildTreeAreTheSameProgram) {
    for (const Command& command : commands()) {
        if (!*command.alone) continue;
        ASSERT_TRUE(std::filesystem::is_symlink(program_path(command.alone))) << command.alone;
        std::vector<std::string> words = words_of(command.name);
        words.push_back("--help");
        std::string page = colonnade(words).out;
        const std::string name = std::string("colonnade ") + command.name;
        for (size_t at; (at = page.find(name + " [options]")) != page.npos;)
            page.replace(at, name.size(), command.alone);
        std::string alone = run(command.alone, {"--help"}).out;
        // The second form of a usage is indented as far as "Usage:".
        EXPECT_EQ(words_of(alone), words_of(page)) << command.alone;
    }
}

class Manual : public FileTest {};

TEST_F(Manual, IsCompleteAndWithoutWarnings) {
    const Program::Result page = colonnade({"man"});
    ASSERT_EQ(page.exit, 0);
    std::string plain;  // without roff's spelling of '-' and others
    for (size_t i = 0; i < page.out.size(); ++i)
        if (page.out[i] != '\\' || page.out[i + 1] != '-') plain += page.out[i];
    for (const Command& command : commands())
        EXPECT_EQ(has(plain, std::string(".SS \"colonnade ") + command.name + '"'), !command.hidden) << command.name;
    for (const Section& section : config_sections())
        for (const Key<Config>& key : section.keys) EXPECT_TRUE(has(plain, "\\fB" + key.name)) << key.name;
    EXPECT_EQ(slurp(program_path("../share/man/man1/colonnade.1")), page.out) << "what is installed";
    spill(path("colonnade.1"), page.out);
    int tried = 0;
    for (const auto& [program, arguments] : {std::pair<const char*, std::vector<std::string>>{
                                                 "/usr/bin/groff", {"-z", "-ww", "-man", path("colonnade.1")}},
                                             {"/usr/bin/mandoc", {"-Tlint", "-Wwarning", path("colonnade.1")}}}) {
        if (access(program, X_OK) != 0) continue;
        const Program::Result lint = run(program, arguments);
        EXPECT_EQ(lint.out + lint.err, "") << program;
        ++tried;
    }
    if (tried == 0) GTEST_SKIP() << "neither groff nor mandoc is installed";
}

}  // namespace
}  // namespace colonnade
