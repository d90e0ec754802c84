// Checkpoints of several ranks with sharded optimizer state: each rank writes its share, any number of ranks reads them,
// and trouble of one rank leaves the last whole checkpoint.

#include <sys/resource.h>

#include "engine/io/hdf5.h"
#include "tests/support/gpu_memory.h"
#include "tests/support/rank_runs.h"
#include "train/folders/run_checkpoints.h"
#include "train/run/shared_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class SharedSaves : public RanksTest {
  protected:
    void SetUp() override {
        RanksTest::SetUp();
        if (IsSkipped()) return;
        write_config("logging_steps: 1\nlearning_rate: 1e-2\nmax_steps: 8\nsave_steps: 4\nsave_total_limit: 0\n");
    }
    /// Six packs a step, whatever the number of ranks is.
    static std::vector<std::string> with_six_packs(int ranks, std::vector<std::string> settings) {
        settings.push_back(fmt::format("gradient_accumulation_steps={}", 6 / ranks));
        return settings;
    }
    Program::Result train_six(int ranks, const std::string& name, const std::vector<std::string>& settings) const {
        return train_ranks(ranks, name, with_six_packs(ranks, settings));
    }
    /// A run that died after step 4.
    void leave(const std::string& run, const std::string& into) const {
        fs::create_directories(path(into));
        fs::copy(checkpoint_folder(path(run), 4), checkpoint_folder(path(into), 4), fs::copy_options::recursive);
        fs::copy(path(run) + "/metrics.jsonl", path(into) + "/metrics.jsonl");
    }
    /// Every checkpoint is whole, and nothing half-written is left.
    void expect_whole(const std::string& name) const {
        for (const int64_t step : checkpoint_steps(path(name)))
            EXPECT_EQ(check_checkpoint(checkpoint_folder(path(name), step)).shards.size(), static_cast<size_t>(ranks()))
                << step;
        EXPECT_EQ(listing(path(name)).find(".tmp-"), std::string::npos) << listing(path(name));
    }
    const std::string sharded_ = "zero_stage=1", auto_ = "resume_from_checkpoint=auto";
};

using SharedSavesOnDevice = OnDevice<SharedSaves>;
INSTANTIATE_TEST_SUITE_P(Devices, SharedSavesOnDevice, every_device(), name_of_device);

TEST_P(SharedSavesOnDevice, AreWrittenByAllRanks) {
    train_six(ranks(), "alone", {"zero_stage=0"});
    EXPECT_EQ(listing(path("alone/checkpoint-8")),
              "config.yaml manifest.json model_config.json state-00001-of-00001.h5 trainer_state.json");
    std::vector<std::string> shares;
    for (int rank = 0; rank < ranks(); ++rank)
        shares.push_back(fmt::format("state-{:05}-of-{:05}.h5", rank + 1, ranks()));
    for (const char* async : {"async_save=true", "async_save=false"}) {
        SCOPED_TRACE(async);
        const std::string name = async;
        const Program::Result result = train_six(ranks(), name, {sharded_, async});
        for (const int64_t step : {4, 8})
            EXPECT_EQ(count_of(result.err, fmt::format("\nsaved {}: ", checkpoint_folder(path(name), step))), 1)
                << result.err;
        const std::string folder = path(name) + "/checkpoint-8/";
        EXPECT_EQ(listing(folder), fmt::format("config.yaml manifest.json model_config.json {} trainer_state.json",
                                               fmt::join(shares, " ")));
        int64_t total = 0, largest = 0;
        for (const std::string& share : shares) {
            const Hdf5Reader reader(folder + share);
            for (const char* array : {"weights", "adamw/m", "adamw/v"}) {
                total += reader.count(array);
                largest = std::max(largest, reader.count(array));
            }
        }
        EXPECT_LT(largest, total / 3 * 3 / (2 * ranks())) << "the work is not shared";
        expect_same(name, "alone");
        expect_whole(name);
    }
}

/// Adapters are saved as PEFT reads them, too, which takes the shares of all ranks.
TEST_F(SharedSaves, OfAdaptersHoldThePeftFolder) {
    train_six(1, "base", {"save_strategy=no", "save_steps=0"});
    write_tuning("finetuning_type: lora\nlora_rank: 4\n", "max_steps: 4\nsave_steps: 2\nsave_total_limit: 0\n");
    train_six(3, "alone", {"zero_stage=0"});
    for (const char* async : {"async_save=true", "async_save=false"}) {
        train_six(3, async, {sharded_, async});
        expect_same(async, "alone");
        for (const int64_t step : {2, 4})
            EXPECT_TRUE(slurp(checkpoint_folder(path(async), step) + "/adapter_model.safetensors") ==
                        slurp(checkpoint_folder(path("alone"), step) + "/adapter_model.safetensors"))
                << async << " " << step;
    }
}

TEST_P(SharedSavesOnDevice, ResumeOnAnyNumberOfRanks) {
    train_six(ranks(), "alone", {"zero_stage=0"});
    train_six(ranks(), "shared", {sharded_});
    for (int n = 1; n <= ranks(); ++n) {
        const std::string of_one = fmt::format("one-{}", n), of_all = fmt::format("all-{}", n);
        leave("alone", of_one);
        leave("shared", of_all);
        train_six(n, of_one, {auto_, "zero_stage=0"});
        const Program::Result result = train_six(n, of_all, {auto_, sharded_});
        EXPECT_NE(result.out.find("resumed from " + path(of_all) + "/checkpoint-4 at step 4 of 8"), std::string::npos);
        expect_same(of_all, of_one);
        // One note, which is true: the steps are made of the same packs.
        const int notes = n == ranks() ? 0 : 1;
        EXPECT_EQ(count_of(result.out, "note: "), notes) << result.out;
        EXPECT_EQ(count_of(result.out, fmt::format("note: {} ranks made the checkpoint, now there are ", ranks())),
                  notes);
        if (n == ranks()) expect_same(of_all, "shared");
    }
}

/// 1, then 3, then 2 ranks: the samples of every step are those of one rank throughout, and sums differ by rounding.
TEST_F(SharedSaves, ResumeOnOneNumberOfRanksAfterAnother) {
    const std::string keep = "lr_scheduler_type=constant";
    train_six(1, "unbroken", {keep});
    for (const char* stage : {"zero_stage=0", "zero_stage=1"}) {
        train_six(1, stage, {keep, stage, "max_steps=3"});
        train_six(3, stage, {keep, stage, "max_steps=6", auto_});
        train_six(2, stage, {keep, stage, auto_});
        const std::vector<Json> log = read_log(path(stage)), expected = read_log(path("unbroken"));
        ASSERT_EQ(log.size(), expected.size());
        for (size_t i = 0; i < log.size(); ++i) {
            EXPECT_EQ(log[i].at("num_tokens"), expected[i].at("num_tokens"));
            EXPECT_NEAR(log[i].at("loss").get<double>(), expected[i].at("loss").get<double>(),
                        2e-6 * expected[i].at("loss").get<double>());
        }
    }
    expect_same("zero_stage=1", "zero_stage=0");
}

TEST_F(SharedSaves, BehindADamagedShareGoOn) {
    train_six(3, "unbroken", {sharded_, "save_steps=2"});
    fs::copy(path("unbroken"), path("run"), fs::copy_options::recursive);
    for (const char* file : {"/model.safetensors", "/config.json", "/checkpoint-8"}) fs::remove_all(path("run") + file);
    const std::string share = path("run/checkpoint-6/state-00002-of-00003.h5");
    std::string damaged = slurp(share);
    damaged[damaged.size() / 2] ^= 1;
    spill(share, damaged);
    const Program::Result result = train_six(3, "run", {sharded_, "save_steps=2", auto_});
    EXPECT_EQ(count_of(result.err, "warning: " + share + ": bytes "), 1) << result.err;
    EXPECT_NE(result.out.find("resumed from " + path("run/checkpoint-4")), std::string::npos) << result.out;
    expect_same("run", "unbroken");
    EXPECT_TRUE(fs::exists(path("run/checkpoint-6.damaged")));
}

// --- Trouble ---

class SharedSavesInTrouble : public SharedSaves {
  protected:
    void SetUp() override {
        SharedSaves::SetUp();
        if (IsSkipped()) return;
        write_config(
            fmt::format("logging_steps: 1\nlearning_rate: 1e-3\nmax_steps: 400\nsave_steps: 20\nddp_timeout: {}\n",
                        on_gpus() ? 10 : 4));
        if (on_gpus()) free_memory_ = free_gpu_memory();
    }
    void TearDown() override {
        if (!free_memory_.empty()) expect_free_gpu_memory(free_memory_);
        SharedSaves::TearDown();
    }
    /// A run that saves in the background or not.
    Program begin(const std::string& name, const std::string& async) const {
        return Program(mpirun(), train_on(ranks(), name, with_six_packs(ranks(), {sharded_, async})), allow_ranks);
    }
    void expect_to_resume(const std::string& name) const {
        train_six(ranks(), name, {sharded_, auto_});
        expect_same(name, "unbroken");
    }
    std::vector<size_t> free_memory_;  ///< of the GPUs, in the beginning
};

TEST_F(SharedSavesInTrouble, AFullDiskOfOneRankEndsAll) {
    train_six(3, "unbroken", {sharded_});
    for (const char* async : {"async_save=true", "async_save=false"}) {
        SCOPED_TRACE(async);
        const std::string name = async;
        Program program = begin(name, async);
        ASSERT_TRUE(program.read_until("saved " + path(name) + "/checkpoint-40"));
        // From now on rank 1 cannot write its share.
        const rlimit limit{5000, 5000};
        EXPECT_EQ(prlimit(process_of_rank(program.pid(), 1), RLIMIT_FSIZE, &limit, nullptr), 0);
        const Program::Result result = program.wait();
        EXPECT_EQ(result.exit, static_cast<int>(Exit::storage)) << result.err;
        EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
        EXPECT_NE(result.err.find("train: error: rank 1 of 3 on "), std::string::npos) << result.err;
        EXPECT_NE(result.err.find("/state-00002-of-00003.h5: cannot "), std::string::npos) << result.err;
        EXPECT_NE(result.err.find("File too large"), std::string::npos) << result.err;
        const int64_t last = checkpoint_steps(path(name)).back();
        EXPECT_GE(last, 40);
        EXPECT_LT(last, 400);
        expect_whole(name);
        expect_to_resume(name);
    }
}

using SharedSavesInTroubleOnDevice = OnDevice<SharedSavesInTrouble>;
INSTANTIATE_TEST_SUITE_P(Devices, SharedSavesInTroubleOnDevice, every_device(), name_of_device);

TEST_P(SharedSavesInTroubleOnDevice, ARankThatEndsWhileItSavesLeavesTheLastWholeOne) {
    train_six(ranks(), "unbroken", {sharded_});
    std::vector<std::pair<int, int>> ends = {{last_rank(), SIGSTOP}};
    for (int rank = 0; rank < ranks(); ++rank) ends.emplace_back(rank, SIGKILL);
    int unfinished = 0;
    for (const auto& [rank, signal] : ends) {
        SCOPED_TRACE(fmt::format("rank {}, signal {}", rank, signal));
        const std::string name = fmt::format("{}-{}", rank, signal);
        Program program = begin(name, "async_save=true");
        ASSERT_TRUE(program.read_until("saving " + path(name) + "/checkpoint-60"));
        kill(process_of_rank(program.pid(), rank), signal);
        const Program::Result result = program.wait();
        EXPECT_NE(result.exit, 0);
        EXPECT_EQ(count_of(result.err, "train: error: "), 1) << result.err;
        const std::vector<int64_t> steps = checkpoint_steps(path(name));
        ASSERT_FALSE(steps.empty());
        EXPECT_GE(steps.back(), 40);
        EXPECT_LT(steps.back(), 400);
        for (const int64_t step : steps) EXPECT_NO_THROW(check_checkpoint(checkpoint_folder(path(name), step)));
        unfinished += listing(path(name)).find("checkpoint-60.tmp-") != std::string::npos;
        expect_to_resume(name);
        expect_whole(name);
    }
    fmt::print("{} of {} ranks ended before the commit\n", unfinished, ends.size());
}

/// Two machines without a common file system: here, two working directories.
TEST_F(SharedSaves, NeedAFolderThatAllRanksSee) {
    for (const char* machine : {"a", "b"}) fs::create_directory(path(machine));
    const auto start = [&](const std::string& stage) {
        std::vector<std::string> all = {"--oversubscribe", "--bind-to", "none"};
        for (const char* machine : {"a", "b"}) {
            if (machine[0] == 'b') all.push_back(":");
            all.insert(all.end(), {"-np", "1", "-wdir", path(machine), program_path("train"), config(),
                                   "output_dir=run", "device=cpu", stage, "gradient_accumulation_steps=3"});
        }
        return Program(mpirun(), all, allow_ranks).wait();
    };
    const Program::Result result = start(sharded_);
    EXPECT_EQ(result.exit, static_cast<int>(Exit::config)) << result.err;
    EXPECT_EQ(count_of(result.err, "error: "), 1) << result.err;
    EXPECT_NE(result.err.find("train: error: rank 1 of 2 on "), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(": output_dir run: this rank does not see what rank 0 of 2 on "), std::string::npos)
        << result.err;
    EXPECT_TRUE(checkpoint_steps(path("a/run")).empty());
    EXPECT_EQ(listing(path("a/run")).find(".tmp-"), std::string::npos) << listing(path("a/run"));
    // Rank 0 saves alone.
    EXPECT_EQ(start("zero_stage=0").exit, 0);
    EXPECT_EQ(checkpoint_steps(path("a/run")), (std::vector<int64_t>{4, 8}));
}

}  // namespace
}  // namespace colonnade
