// bench_save prints every figure and leaves nothing behind.

#include "tests/support/file_test.h"
#include "tests/support/program.h"

namespace colonnade {
namespace {

using BenchSave = FileTest;

TEST_F(BenchSave, PrintsItsFiguresAndLeavesNothing) {
    const Program::Result result = run("bench_save", {path("new"), "--model", "qwen2.5-0.5b", "--layers", "1",
                                                      "--vocab", "50", "--length", "16", "--steps", "1", "--cpu"});
    EXPECT_EQ(result.exit, 0) << result.err;
    for (const char* line : {"device     CPU", "\nstate      171.", "\ndisk ", "\nstall ", "\nsteps ", "\ncommit ",
                             "\nno steps ", "\nload ", "\nload again "})
        EXPECT_NE(result.out.find(line), std::string::npos) << result.out << "\n  lacks: " << line;
    EXPECT_EQ(listing(path("new")), "");
}

}  // namespace
}  // namespace colonnade
