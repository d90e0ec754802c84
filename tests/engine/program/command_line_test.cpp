// What run_command() gives every program: --version, usage errors, and threads that sleep while they wait.

#include <fmt/ranges.h>

#include <algorithm>

#include "engine/device/version.h"
#include "tests/support/program.h"

namespace colonnade {
namespace {

const std::vector<std::string> programs = {"train",           "prepare",         "generate",           "chat",
                                           "export",          "train_tokenizer", "bench_generate",     "check_packing",
                                           "bench_step",      "bench_prepare",   "bench_save",         "bench_layers",
                                           "bench_attention", "wordnet_chat",    "wordnet_preferences"};

TEST(CommandLine, EveryProgramPrintsItsVersion) {
    for (const std::string& program : programs) {
        const Program::Result result = run(program, {"--version"});
        ASSERT_EQ(result.exit, 0) << program << ": " << result.err;
        EXPECT_TRUE(result.out.starts_with(program + " " COLONNADE_VERSION)) << result.out;
        for (const char* part : {"\ncompiler ", "\ninstruction set ", "\nCUDA ", "\nMPI ", "\nNCCL "})
            EXPECT_NE(result.out.find(part), std::string::npos) << program << " lacks" << part;
        EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 6) << result.out;
    }
}

TEST(CommandLine, WrongUsageIsOneLineThatNamesTheProgram) {
    const Program::Result result = run("generate", {"--no-such-option"});
    EXPECT_EQ(result.exit, 2);
    EXPECT_TRUE(result.err.starts_with("generate: error: ")) << result.err;
    EXPECT_TRUE(result.err.ends_with("(see generate --help)\n")) << result.err;
}

// libgomp shows its settings when it is initialised, which the program lets happen once its settings are right.
std::vector<std::string> spin_counts(const std::function<void()>& environment, const std::string& program = "train",
                                     std::vector<std::string> arguments = {}) {
    arguments.push_back("--version");
    const Program::Result result = run(program, arguments, [&] {
        unsetenv("OMP_WAIT_POLICY");
        unsetenv("GOMP_SPINCOUNT");
        setenv("OMP_DISPLAY_ENV", "verbose", 1);
        environment();
    });
    EXPECT_EQ(result.exit, 0);
    std::vector<std::string> counts;
    const std::string name = "GOMP_SPINCOUNT = '";
    for (size_t at = 0; (at = result.err.find(name, at)) != std::string::npos;) {
        at += name.size();
        counts.push_back(result.err.substr(at, result.err.find('\'', at) - at));
    }
    return counts;
}

TEST(CommandLine, WaitingThreadsSleepUnlessTheEnvironmentSaysOtherwise) {
    EXPECT_EQ(spin_counts([] {}), std::vector<std::string>{"0"});
    for (const char* program : {"generate", "chat", "bench_generate"})  // a token has hundreds of short regions
        EXPECT_EQ(spin_counts([] {}, program), std::vector<std::string>{"1000"}) << program;
    for (const auto& [words, count] : {std::pair<std::vector<std::string>, const char*>{{"train"}, "0"},
                                       {{"chat"}, "1000"},
                                       {{"bench", "generate"}, "1000"},
                                       {{"bench", "step"}, "0"},
                                       {{}, "0"}})
        EXPECT_EQ(spin_counts([] {}, "colonnade", words), std::vector<std::string>{count})
            << fmt::format("{}", fmt::join(words, " "));
    EXPECT_EQ(spin_counts([] { setenv("GOMP_SPINCOUNT", "77", 1); }), std::vector<std::string>{"77"});
    EXPECT_EQ(spin_counts([] { setenv("OMP_WAIT_POLICY", "active", 1); }).size(), 1u);
}

}  // namespace
}  // namespace colonnade
