// The checkpoints of a run: the newest whole one is found behind damaged ones, which are kept aside; old ones go, and one
// that cannot go is told.

#include "train/folders/run_checkpoints.h"

#include "engine/io/json.h"
#include "engine/io/sha256.h"
#include "tests/support/file_test.h"
#include "tests/support/tiny_model.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// The smallest model: its checkpoints have few bytes, and tests damage each of them.
class RunCheckpoints : public FileTest {
  protected:
    static ModelConfig smallest() {
        ModelConfig c = tiny_config(Architecture::llama);
        c.vocab_size = 3;
        c.hidden_size = c.head_dim = 4;
        c.intermediate_size = 2;
        c.num_attention_heads = c.num_key_value_heads = c.num_hidden_layers = 1;
        c.windows = {0};
        return c;
    }
    std::string save(int64_t step) const {
        const std::string folder = checkpoint_folder(folder_, step);
        save_checkpoint(folder, *learner_,
                        {.step = step, .since_log = {}, .data_key = "key", .config_yaml = "seed: 42\n"});
        return folder;
    }
    std::unique_ptr<Learner> learner_ = tiny_learner(smallest(), DType::f32, 1, 8);
};

/// Every byte of every file of the newest checkpoint in turn: cut off there, and with a bit flipped.
TEST_F(RunCheckpoints, DamageOfAnyByteIsSeen) {
    const std::string older = save(1), newest = save(2);
    int64_t damages = 0;
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(newest)) names.push_back(file.path().filename());
    ASSERT_EQ(names.size(), 5u);
    for (const std::string& name : names) {
        const std::string file = newest + "/" + name, whole = slurp(file);
        const auto expect_seen = [&](const std::string& content, size_t at) {
            spill(file, content);
            ++damages;
            try {
                check_checkpoint(newest);
                ADD_FAILURE() << name << ", byte " << at << ": not seen";
            } catch (const Error& e) {
                if (e.exit() == Exit::data && std::string_view(e.what()).find(file) != std::string::npos) return;
                ADD_FAILURE() << name << ", byte " << at << ": " << e.what();
            }
        };
        // The last byte of the manifest is a line break, which does not matter.
        const size_t end = whole.size() - (name == "manifest.json");
        for (size_t at = 0; at < end && !HasFailure(); ++at) {
            std::string flipped = whole;
            flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 8));
            expect_seen(flipped, at);
            expect_seen(whole.substr(0, at), at);
        }
        spill(file, whole);
    }
    fmt::print("{} damages\n", damages);
    EXPECT_GT(damages, 10'000);
    EXPECT_EQ(newest_checkpoint(folder_).whole->folder, newest);
}

TEST_F(RunCheckpoints, TheNewestWholeOneIsTaken) {
    const std::string older = save(10), newest = save(20);
    const auto expect_older = [&](const std::string& reason, const std::string& aside) {
        const NewestCheckpoint found = newest_checkpoint(folder_);
        ASSERT_TRUE(found.whole);
        EXPECT_EQ(found.whole->folder, older);
        ASSERT_EQ(found.notices.size(), 1u);
        EXPECT_TRUE(found.notices[0].starts_with("warning: " + newest + reason)) << found.notices[0];
        EXPECT_TRUE(found.notices[0].ends_with("; kept as " + aside + ", and the run resumes from an older checkpoint"))
            << found.notices[0];
        EXPECT_EQ(found.notices[0].find('\n'), std::string::npos);
        EXPECT_EQ(found.notices[0].find("damaged: "), std::string::npos) << "advice for those who chose it";
        EXPECT_EQ(checkpoint_steps(folder_), std::vector<int64_t>{10});
        EXPECT_TRUE(fs::is_directory(path(aside)));
        EXPECT_TRUE(newest_checkpoint(folder_).notices.empty()) << "told twice";
    };
    std::string damaged = slurp(newest + "/state-00001-of-00001.h5");
    damaged[damaged.size() / 2] ^= 1;
    spill(newest + "/state-00001-of-00001.h5", damaged);
    expect_older("/state-00001-of-00001.h5: bytes ", "checkpoint-20.damaged");
    EXPECT_TRUE(slurp(path("checkpoint-20.damaged/state-00001-of-00001.h5")) == damaged);
    // The next ones get a name of their own.
    fs::create_directory(newest);
    expect_older(": not a checkpoint: manifest.json is missing", "checkpoint-20.damaged-2");
    fs::create_directory(newest);
    spill(newest + "/model.safetensors", "of another program");
    expect_older(": not a checkpoint: manifest.json is missing", "checkpoint-20.damaged-3");
    fs::copy(older, newest);
    fs::remove(newest + "/config.yaml");
    expect_older("/config.yaml: file is missing", "checkpoint-20.damaged-4");
    // Several at once.
    fs::create_directory(newest);
    fs::create_directory(path("checkpoint-15"));
    const NewestCheckpoint found = newest_checkpoint(folder_);
    EXPECT_EQ(found.whole->folder, older);
    EXPECT_EQ(found.notices.size(), 2u);
    EXPECT_EQ(load_checkpoint(*found.whole, *learner_).step, 10);
}

TEST_F(RunCheckpoints, NoneIsWholeIsAnErrorThatChangesNothing) {
    EXPECT_FALSE(newest_checkpoint(folder_).whole);
    EXPECT_FALSE(newest_checkpoint(path("nowhere")).whole);
    fs::create_directory(path("checkpoint-1"));
    const std::string newest = save(2);
    fs::resize_file(newest + "/config.yaml", 1);
    expect_error(Exit::data,
                 folder_ + ": has 2 checkpoints, and none is whole: " + newest + "/config.yaml: 1 bytes, expected 9; ",
                 [&] { newest_checkpoint(folder_); });
    EXPECT_EQ(listing(folder_), "checkpoint-1 checkpoint-2");
}

/// That is no damage: the program to resume with is another one.
TEST_F(RunCheckpoints, OneOfANewerProgramIsNotPassedOver) {
    save(1);
    const std::string manifest = save(2) + "/manifest.json";
    Json body = read_json_file(manifest).at("body");
    body["version"] = 99;
    spill(manifest, Json{{"body", body}, {"sha256", sha256(body.dump())}}.dump());
    expect_error(Exit::config, "checkpoint version 99", [&] { newest_checkpoint(folder_); });
    EXPECT_EQ(listing(folder_), "checkpoint-1 checkpoint-2");
}

TEST_F(RunCheckpoints, RotationKeepsTheNewest) {
    for (const int64_t step : {2, 10, 9, 100}) fs::create_directories(checkpoint_folder(folder_, step) + "/inside");
    for (const char* other : {"checkpoint-", "checkpoint-5x", "checkpoint-7.tmp-1", "checkpoint-8.trash-1",
                              "checkpoint-99999999999999999999", "checkpoint-300.damaged", "other-3"})
        fs::create_directories(path(other));
    spill(path("checkpoint-200"), "a file");
    spill(path("config.yaml.tmp-3"), "half a config");
    spill(path("notes.tmp-3"), "somebody's own");
    EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{2, 9, 10, 100}));
    EXPECT_EQ(rotate_checkpoints(folder_, {.keep = 0}), "");
    EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{2, 9, 10, 100}));
    EXPECT_EQ(rotate_checkpoints(folder_, {.keep = 2}), "");
    EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{10, 100}));
    EXPECT_EQ(rotate_checkpoints(folder_, {.keep = 5}), "");
    EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{10, 100}));
    EXPECT_EQ(remove_leftovers(folder_), "");
    EXPECT_EQ(listing(folder_),
              "checkpoint- checkpoint-10 checkpoint-100 checkpoint-200 checkpoint-300.damaged checkpoint-5x "
              "checkpoint-99999999999999999999 "
              "notes.tmp-3 other-3");
    EXPECT_TRUE(checkpoint_steps(path("nowhere")).empty());
}

/// Runs `body` as a user who may not change other people's folders.
void as_nobody(const std::function<void()>& body) {
    const bool root = geteuid() == 0;
    if (root) {
        ASSERT_EQ(seteuid(65534), 0);
    }
    body();
    if (root) {
        ASSERT_EQ(seteuid(0), 0);
    }
}

TEST_F(RunCheckpoints, WhatCannotBeRemovedIsTold) {
    for (const int64_t step : {1, 2, 3}) fs::create_directories(checkpoint_folder(folder_, step) + "/inside");
    fs::create_directories(path("checkpoint-9.tmp-1/inside"));
    using enum fs::perms;
    fs::permissions(folder_, owner_read | owner_exec | group_read | group_exec | others_read | others_exec);
    as_nobody([&] {
        EXPECT_EQ(rotate_checkpoints(folder_, {.keep = 1}),
                  path("checkpoint-1") + ": cannot rename for deletion: Permission denied");
        EXPECT_EQ(remove_leftovers(folder_), path("checkpoint-9.tmp-1/inside") + ": cannot delete: Permission denied");
    });
    fs::permissions(folder_, owner_all);
    EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{1, 2, 3}));
    EXPECT_EQ(rotate_checkpoints(folder_, {.keep = 1}), "");
    EXPECT_EQ(remove_leftovers(folder_), "");
    EXPECT_EQ(listing(folder_), "checkpoint-3");
}

}  // namespace
}  // namespace colonnade
