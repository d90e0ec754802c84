// Saves in the background: they store the state of the moment at which they began, whatever training does meanwhile;
// an error or a kill at any system call leaves the previous checkpoint, and the error reaches the caller.

#include "train/folders/background_save.h"

#include <omp.h>

#include "tests/support/faulty_files.h"
#include "tests/support/file_test.h"
#include "tests/support/test_gpu.h"
#include "tests/support/tiny_model.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class BackgroundSaves : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        omp_set_num_threads(1);  // children of a process with a team of threads could not use it
        learner_ = tiny_learner(tiny_config(Architecture::qwen3), DType::f32, 1, 32);
        train(1);
    }
    void train(int updates, BackgroundSave* saver = nullptr) {
        const Context ctx = learner_->context();
        for (int i = 0; i < updates; ++i) {
            const Sample sample = random_sample(draw_++, 0, {30}, learner_->config().vocab_size);
            const Batch batch = make_batch({{&sample}});
            learner_->begin_step();
            learner_->accumulate(ctx, batch, {.total = batch.target_weight});
            if (saver) saver->hold();
            learner_->update(ctx, {}, 1e-2, 1);
            learner_->result();
        }
    }
    std::string folder(int64_t step) const { return checkpoint_folder(folder_, step); }
    TrainerState state(int64_t step) const {
        return {.step = step, .since_log = {}, .data_key = "key", .config_yaml = "seed: 42\n"};
    }
    std::vector<std::vector<double>> numbers() const { return state_of(*learner_); }
    /// Checkpoint 1, in the foreground, and a saver.
    void prepare() {
        save_checkpoint(folder(1), *learner_, state(1));
        first_ = numbers();
        saver_.emplace(*learner_);
    }
    void expect_the_first() {
        remove_leftovers(folder_);
        EXPECT_EQ(listing(folder_), "checkpoint-1");
        EXPECT_EQ(load_checkpoint(folder(1), *learner_).step, 1);
        EXPECT_TRUE(numbers() == first_);
    }
    /// A save with training beside it; returns the number of calls of the file system, for a loop over all of them.
    int save_while_training(const Faults& faults) {
        train(1);
        shim_.arm(faults);
        saver_->begin(folder(2), state(2), 0);
        train(2);
        saver_->wait();
        shim_.disarm();
        return static_cast<int>(shim_.calls().size());
    }
    void be_slow() { shim_.arm({.delay = 20'000}); }

    FaultyFiles shim_;
    ReplacedFileSystem replaced_{shim_};
    std::unique_ptr<Learner> learner_;
    std::optional<BackgroundSave> saver_;
    std::vector<std::vector<double>> first_;
    uint64_t draw_ = 0;
};

TEST_F(BackgroundSaves, StoreTheStateOfTheirBeginning) {
    BackgroundSave saver(*learner_);
    for (int64_t step = 1; step <= 3; ++step) {
        const std::string here = path("here"), there = folder(step);
        save_checkpoint(here, *learner_, state(step));
        be_slow();
        saver.begin(there, state(step), 2);
        EXPECT_FALSE(saver.poll());
        train(5);
        EXPECT_FALSE(fs::exists(there)) << "the save was not slow enough for this test";
        const std::optional<SavedCheckpoint> saved = saver.wait();
        shim_.disarm();
        ASSERT_TRUE(saved);
        EXPECT_EQ(saved->folder, there);
        EXPECT_GT(saved->seconds, 0.2);
        uint64_t bytes = 0;
        EXPECT_EQ(listing(there), listing(here));
        for (const auto& file : fs::directory_iterator(here)) {
            EXPECT_TRUE(slurp(there + "/" + file.path().filename().string()) == slurp(file.path())) << file.path();
            if (file.path().filename() != "manifest.json") bytes += file.file_size();
        }
        EXPECT_EQ(saved->bytes, bytes);
        EXPECT_FALSE(saver.poll() || saver.wait()) << "told twice";
        fs::remove_all(here);
    }
    EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{2, 3})) << "two were to be kept";
}

TEST_F(BackgroundSaves, OnAGpuStoreTheStateOfTheirBeginning) {
    if (!test_gpu()) GTEST_SKIP() << "no CUDA device";
    for (const DType moments : {DType::f32, DType::bf16, DType::u8}) {
        learner_ = std::make_unique<Learner>(
            small_config(Architecture::qwen3),
            LearnerOptions{.max_length = 32, .head_chunk = 7, .moments = moments, .gpu = test_gpu()});
        randomize(*learner_, 1);
        BackgroundSave saver(*learner_);
        for (int64_t step = 1; step <= 3; ++step) {
            train(2, &saver);
            save_checkpoint(path("here"), *learner_, state(step));
            saver.begin(folder(step), state(step), 1);
            train(3, &saver);
            EXPECT_TRUE(saver.wait());
            const char* const shard = "/state-00001-of-00001.h5";
            EXPECT_TRUE(slurp(path("here") + shard) == slurp(folder(step) + shard)) << name_of(moments) << " " << step;
            const auto before = weights_of(*learner_);
            load_checkpoint(folder(step), *learner_);
            EXPECT_FALSE(weights_of(*learner_) == before);
            fs::remove_all(path("here"));
        }
        fs::remove_all(folder(3));
    }
}

TEST_F(BackgroundSaves, AreNeverTwoAtOnce) {
    BackgroundSave saver(*learner_);
    be_slow();
    saver.begin(folder(1), state(1), 0);
    expect_error(Exit::internal, "checkpoint-1 is still under way", [&] { saver.begin(folder(2), state(2), 0); });
    saver.wait();
    saver.begin(folder(2), state(2), 0);
    saver.wait();
    shim_.disarm();
    EXPECT_EQ(listing(folder_), "checkpoint-1 checkpoint-2");
}

TEST_F(BackgroundSaves, AreCommittedBeforeTheirSaverIsGone) {
    be_slow();
    std::make_unique<BackgroundSave>(*learner_)->begin(folder(1), state(1), 0);
    shim_.disarm();
    EXPECT_EQ(load_checkpoint(folder(1), *learner_).step, 1);
}

TEST_F(BackgroundSaves, AnErrorOfAnyCallReachesTheCaller) {
    prepare();
    int calls = 0, step = 0;
    for (int n = 0; n == 0 || n < calls; ++n) {
        SCOPED_TRACE(fmt::format("call {} of {} fails", n, calls));
        const int exit = exit_of_child([&] {
            // The thread of the parent's saver does not exist here: a saver of its own.
            return save_while_training({.fail_at = n}), 0;
        });
        if (exit == 0) {  // the last calls sync the parent folder after the commit
            ADD_FAILURE() << "the error is lost";
            break;
        }
        EXPECT_EQ(exit, static_cast<int>(Exit::storage));
        if (n == 0) calls = exit_of_child([&] { return save_while_training({}); });
        remove_leftovers(folder_);
        // After the rename the checkpoint exists, although the folder above could not be synced.
        if (fs::exists(folder(2))) {
            EXPECT_EQ(load_checkpoint(folder(2), *learner_).step, 2);
            fs::remove_all(folder(2));
        }
        expect_the_first();
        ++step;
    }
    EXPECT_GT(step, 15) << "too few calls: is the shim in use?";
}

TEST_F(BackgroundSaves, AKillAtAnyCallLeavesAWholeCheckpoint) {
    prepare();
    int kills = 0, committed = 0;
    while (exit_of_child([&] { return save_while_training({.kill_at = kills}), 0; }) == killed) {
        SCOPED_TRACE(fmt::format("killed at call {}", kills));
        ++kills;
        remove_leftovers(folder_);
        if (fs::exists(folder(2))) {
            ++committed;
            EXPECT_EQ(load_checkpoint(folder(2), *learner_).step, 2);
            fs::remove_all(folder(2));
        }
        expect_the_first();
    }
    EXPECT_GT(kills, 15) << "too few calls: is the shim in use?";
    EXPECT_GE(committed, 1) << "the calls after the commit";
    EXPECT_EQ(load_checkpoint(folder(2), *learner_).step, 2) << "not killed";
}

}  // namespace
}  // namespace colonnade
