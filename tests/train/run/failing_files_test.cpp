// Every call of the file system fails once, in every part of a run: it ends with exit code 7 and a line with the path
// and the cause; what had been saved stays; the next start goes on to the same bits. Interrupted calls and short
// transfers are not noticed at all.

#include "engine/io/files.h"
#include "tests/support/fail_everywhere.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class FailingFiles : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        spill(path("train.jsonl"), chain_rows(30));
        write_config(
            "device: cpu\nmax_steps: 3\nlogging_steps: 1\nsave_steps: 1\nsave_total_limit: 1\nlearning_rate: 0.01\n");
    }
    FaultyFiles quick_;  ///< not armed: it only leaves out the fsyncs
    ReplacedFileSystem replaced_{quick_};

    /// Trains in "out"; throws what ends it.
    void train_here(const std::vector<std::string>& settings) const {
        std::vector<std::string> all = {output("out")};
        all.insert(all.end(), settings.begin(), settings.end());
        quietly([&] { Trainer(open_session(load_config(config(), all))).run(); });
    }
    void clear() const {
        for (const char* name : {"out", "prepared"}) fs::remove_all(path(name));
    }
    void expect_every_error_to_be_told(const std::vector<std::string>& settings) {
        train_here(settings);
        const RunResult clean = result_of(path("out"));
        std::vector<std::string> resumed = settings;
        resumed.push_back("resume_from_checkpoint=auto");
        int64_t runs = 0;
        const FailedCalls calls = fail_everywhere(
            folder_, [&] { clear(); }, [&] { train_here(settings); },
            [&](bool returned) {
                ++runs;
                if (!returned) train_here(resumed);
                EXPECT_TRUE(result_of(path("out")) == clean);
                // The next start sweeps an empty folder of an export that could not be deleted.
                fs::remove(path(fmt::format("out/.weights.tmp-{}", getpid())));
                const std::string left = fmt::format(".tmp-{}", getpid());
                EXPECT_EQ(listing(path("out")).find(left), std::string::npos) << listing(path("out"));
            },
            stride(5));
        EXPECT_GT(calls.errors, 40);
        for (const char* kind : {"open", "read", "write", "fsync"})
            EXPECT_TRUE(calls.kinds.contains(kind)) << kind << " never failed";
        // The text in the lock file is for messages only; a file that was read, or is fsynced, is closed in vain; a
        // checkpoint that cannot be deleted, what train.log and run.json lack, and a report that cannot be made from the
        // files of the run, are named in a warning.
        for (const std::string& call : calls.ignored) {
            const bool of_deletion =
                call.find(".trash-") != call.npos || call.starts_with("rmdir ") || call.ends_with(" " + path("out"));
            const bool of_record = call.ends_with("out/train.log") || call.find("out/run.json") != call.npos;
            const bool reads = call.starts_with("open ") || call.starts_with("read ");
            const bool of_report =
                call.find("out/report.") != call.npos ||
                (reads && (call.ends_with("out/metrics.jsonl") || call.ends_with("out/config.yaml")));
            EXPECT_TRUE(call.ends_with("out/.lock") || call.starts_with("close ") || of_deletion || of_record ||
                        of_report)
                << call;
        }
        fmt::print("{} calls failed, {} of them told\n", runs - 1, calls.errors);
    }
};

TEST_F(FailingFiles, EndARunWithItsOwnCode) {
    expect_every_error_to_be_told({"async_save=false"});
}

TEST_F(FailingFiles, InTheBackgroundEndARunToo) {
    expect_every_error_to_be_told({"async_save=true"});
}

/// The run waits for the save under way before it begins the next one: no save is left out, and none is mixed.
TEST_F(FailingFiles, ASaveMayTakeLongerThanTheInterval) {
    const std::vector<std::string> settings = {"async_save=true", "save_total_limit=0"};
    train_here({"async_save=false", "save_total_limit=0"});
    const RunResult clean = result_of(path("out"));
    std::map<int64_t, std::string> states;
    const auto state = [&](int64_t step) {
        return slurp(checkpoint_folder(path("out"), step) + "/state-00001-of-00001.h5");
    };
    for (const int64_t step : {1, 2, 3}) states[step] = state(step);
    clear();
    FaultyFiles files;
    const ReplacedFileSystem replaced(files);
    files.arm({.delay = 3000});
    train_here(settings);
    EXPECT_TRUE(result_of(path("out")) == clean);
    for (const int64_t step : {1, 2, 3}) EXPECT_TRUE(state(step) == states[step]) << step;
}

/// A real SIGKILL at every call. The next start sweeps what is left, and goes on to the same bits.
TEST_F(FailingFiles, AreNothingToAKilledRun) {
    train_here({});
    const RunResult clean = result_of(path("out"));
    const std::string expected = listing(path("out")), prepared = listing(path("prepared"));
    clear();
    FaultyFiles files;
    int call = 0, runs = 0, left = 0;
    for (; exit_of_child([&] {
               const ReplacedFileSystem replaced(files);
               files.arm({.kill_at = call});
               train_here({});
               return 0;
           }) == killed;
         call += stride(7)) {
        SCOPED_TRACE(fmt::format("killed at call {}", call));
        ++runs;
        for (const char* folder : {"out", "prepared"})
            left += fs::exists(path(folder)) && listing(path(folder)).find(".t") != std::string::npos;
        train_here({"resume_from_checkpoint=auto"});
        EXPECT_TRUE(result_of(path("out")) == clean);
        // The checkpoint before the last may stay, if the last was saved and the kill came before the deletion.
        remove_tree(checkpoint_folder(path("out"), 2));
        EXPECT_EQ(listing(path("out")), expected);
        EXPECT_EQ(listing(path("prepared")), prepared);
        clear();
        if (HasFailure()) return;
    }
    EXPECT_GT(call, 150) << "too few calls";
    EXPECT_GT(left, 10) << "the kills left nothing";
    fmt::print("{} kills, {} of them left temporary files\n", runs, left);
}

TEST_F(FailingFiles, InterruptionsAndShortTransfersChangeNothing) {
    train_here({});
    const RunResult clean = result_of(path("out"));
    clear();
    FaultyFiles files;
    const ReplacedFileSystem replaced(files);
    files.arm({.reads = true, .stutter = true});
    train_here({});
    files.disarm();
    EXPECT_TRUE(result_of(path("out")) == clean);
    EXPECT_GT(files.calls().size(), 1000u);
}

}  // namespace
}  // namespace colonnade
