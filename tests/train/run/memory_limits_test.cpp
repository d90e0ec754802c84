// Programs that lack memory: under a limit of address space, and when an allocation fails. They end with exit code 8 and
// one line that says so, or go on; never by a signal, and never without end.
//
// COLONNADE_FAILED_ALLOCATIONS is the number of places at which each program is made to fail (default 12).

#include <sys/resource.h>

#include <csignal>

#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class MemoryLimits : public RunTest {
  protected:
    void SetUp() override {
#ifdef __SANITIZE_ADDRESS__
        GTEST_SKIP() << "the address sanitizer reserves terabytes of address space, and has an allocator of its own";
#endif
        RunTest::SetUp();
        write_config("max_steps: 2\nsave_steps: 1\n");
    }

    /// Checks how a program ended: by itself, or with code 8 and one line. HDF5 does not always distinguish a lack of
    /// memory from a file that cannot be read or written.
    static void expect_told(const Program::Result& result, const std::string& program) {
        const bool of_file =
            result.exit == static_cast<int>(Exit::data) || result.exit == static_cast<int>(Exit::storage);
        EXPECT_TRUE(result.exit == 0 || result.exit == static_cast<int>(Exit::memory) || of_file) << result.exit << "\n"
                                                                                                  << result.err;
        size_t lines = 0;
        for (size_t at = 0; (at = result.err.find(program + ": error: ", at)) != std::string::npos; ++at) ++lines;
        EXPECT_EQ(lines, result.exit == 0 ? 0u : 1u) << result.err;
    }

    /// A run whose address space is limited, and which is killed after 60 seconds.
    Program::Result limited(const std::string& program, const std::vector<std::string>& arguments, rlim_t mib) const {
        return run(program, arguments, [&] {
            const rlimit space{mib << 20, mib << 20}, no_core{0, 0};
            setrlimit(RLIMIT_AS, &space);
            setrlimit(RLIMIT_CORE, &no_core);
            alarm(60);
        });
    }
    /// MiB of address space that the dynamic loader needs for the libraries of `train`, in steps of 50. It has messages
    /// and an exit code of its own.
    rlim_t least_to_load() const {
        rlim_t mib = 50;
        while (limited("train", {"--version"}, mib).exit == 127) mib += 50;
        return mib;
    }
};

TEST_F(MemoryLimits, TooLittleAddressSpaceEndsBeforeTraining) {
    bool refused = false, trained = false;
    const rlim_t loaded = least_to_load();
    for (const rlim_t more : {0, 50, 100, 200, 300, 390, 500, 640, 680, 700, 1000, 40'000}) {
        const rlim_t mib = loaded + more;
        SCOPED_TRACE(fmt::format("{} MiB", mib));
        fs::remove_all(path("run"));
        const auto result = limited("train", {config(), output("run"), "threads=2"}, mib);
        expect_told(result, "train");
        EXPECT_EQ(result.exit != 0, result.err.find(" MiB of address space") != std::string::npos) << result.err;
        EXPECT_EQ(result.exit == 0, fs::exists(path("run/model.safetensors")));
        refused |= result.exit != 0;
        trained |= result.exit == 0;
    }
    EXPECT_TRUE(refused);
    EXPECT_TRUE(trained);
}

TEST_F(MemoryLimits, ThreadsThatDoNotFitAreTold) {
    const rlim_t loaded = least_to_load();
    for (const rlim_t more : {800, 1280, 1300, 1320, 1340, 1360, 1400}) {
        const rlim_t mib = loaded + more;
        SCOPED_TRACE(fmt::format("{} MiB", mib));
        fs::remove_all(path("run"));
        fs::remove_all(path("prepared"));
        expect_told(limited("train", {config(), output("run"), "threads=8"}, mib), "train");
    }
}

/// Runs a program with the allocations that `which` names failing (support/failing_malloc.cpp).
Program::Result with_failing(const std::string& program, const std::vector<std::string>& arguments,
                             const std::string& which, const std::string& count_file = "") {
    return run(program, arguments, [&] {
        const rlimit no_core{0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        setenv("LD_PRELOAD", FAILING_MALLOC, 1);
        setenv("OMP_WAIT_POLICY", "passive", 1);
        if (!which.empty()) setenv("COLONNADE_FAIL_ALLOCATION", which.c_str(), 1);
        if (!count_file.empty()) setenv("COLONNADE_COUNT_ALLOCATIONS", count_file.c_str(), 1);
        alarm(60);
    });
}

TEST_F(MemoryLimits, AFailedAllocationEndsWithOneLine) {
    const char* wanted = std::getenv("COLONNADE_FAILED_ALLOCATIONS");
    const int64_t places = wanted ? std::atoll(wanted) : 12;
    train(config(), {output("model")});
    const struct {
        const char* program;
        std::vector<std::string> arguments;
    } programs[] = {{"train", {config(), output("run"), "threads=2"}},
                    {"prepare", {config(), output("run")}},
                    {"export", {path("model/checkpoint-2"), path("exported")}}};
    for (const auto& [program, arguments] : programs) {
        const auto clean = [&] {
            for (const char* name : {"run", "prepared", "exported"}) fs::remove_all(path(name));
        };
        clean();
        ASSERT_EQ(with_failing(program, arguments, "", path("count")).exit, 0) << program;
        const int64_t count = std::atoll(slurp(path("count")).c_str());
        ASSERT_GT(count, 1000) << program;
        const Philox random{1, 0};
        for (int64_t i = 0; i < places; ++i) {
            const auto number = static_cast<int64_t>(random.below(static_cast<uint64_t>(i), count));
            const std::string which = std::to_string(1 + number);
            SCOPED_TRACE(fmt::format("{}: allocation {} of {}", program, which, count));
            clean();
            const auto result = with_failing(program, arguments, which);
            expect_told(result, program);
            // What was saved is whole: a run goes on from it.
            const auto steps = checkpoint_steps(path("run"));
            if (std::string(program) != "train" || result.exit == 0 || steps.empty()) continue;
            EXPECT_EQ(run("train", {config(), output("run"), "resume_from_checkpoint=auto"}).exit, 0);
        }
    }
}

}  // namespace
}  // namespace colonnade
