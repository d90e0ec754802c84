// Every call of the file system fails once in a save, a rotation, a store's build and an export: exit code 7 with the
// path and the cause, and what was there before is still there. No fsync is tried again.

#include "data/store/build_store.h"
#include "engine/io/files.h"
#include "tests/support/fail_everywhere.h"
#include "tests/support/tiny_lora.h"
#include "tests/support/tiny_run.h"
#include "train/folders/export.h"
#include "train/folders/run_checkpoints.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class FailingCalls : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        make_folders(path("run"));
    }
    FaultyFiles quick_;  ///< not armed: it only leaves out the fsyncs
    ReplacedFileSystem replaced_{quick_};

    static TrainerState state(int64_t step) {
        return {.step = step, .since_log = {}, .data_key = "key", .config_yaml = "seed: 42\n"};
    }
    std::string folder(int64_t step) const { return checkpoint_folder(path("run"), step); }
    static std::vector<float> weights(const Learner& learner) { return values_of<float>(learner.weights()); }
    void expect_save(Learner& learner) {
        save_checkpoint(folder(1), learner, state(1));
        const std::vector<float> first = weights(learner);
        randomize(learner, 2);
        const std::vector<float> second = weights(learner);
        const FailedCalls calls = fail_everywhere(
            folder_,
            [&] {
                if (fs::exists(folder(2))) remove_folder(folder(2));
                learner.fill_weights([&](const Tensor& w) { std::ranges::copy(second, w.as<float>()); });
            },
            [&] { save_checkpoint(folder(2), learner, state(2)); },
            [&](bool returned) {
                // After the rename the checkpoint exists, although the folder above could not be synced.
                const bool second_exists = fs::exists(folder(2));
                EXPECT_TRUE(second_exists || !returned);
                EXPECT_EQ(listing(path("run")), second_exists ? "checkpoint-1 checkpoint-2" : "checkpoint-1");
                EXPECT_EQ(load_checkpoint(folder(1), learner).step, 1);
                EXPECT_TRUE(weights(learner) == first);
                if (!second_exists) return;
                EXPECT_EQ(load_checkpoint(folder(2), learner).step, 2);
                EXPECT_TRUE(weights(learner) == second);
            });
        for (const std::string& call : calls.ignored) EXPECT_TRUE(call.starts_with("close ")) << call;  // after reading
        EXPECT_GT(calls.errors, 50);
    }
};

TEST_F(FailingCalls, OfASave) {
    const auto learner = tiny_learner(tiny_config(Architecture::qwen3), DType::f32, 1, 32);
    expect_save(*learner);
}

TEST_F(FailingCalls, OfASaveOfAdapters) {
    const auto learner = lora_learner(tiny_config(Architecture::qwen3), DType::f32, lora_of(), 1, 32);
    expect_save(*learner);
}

TEST_F(FailingCalls, OfARotationAndALoad) {
    const auto learner = tiny_learner(tiny_config(Architecture::qwen3), DType::f32, 1, 32);
    const auto save = [&] {
        for (const int64_t step : {1, 2})
            if (!fs::exists(folder(step))) save_checkpoint(folder(step), *learner, state(step));
    };
    const FailedCalls rotation = fail_everywhere(
        folder_, save,
        [&] {
            if (const std::string trouble = rotate_checkpoints(path("run"), {.keep = 1}); !trouble.empty())
                throw Error(Exit::storage, trouble);
        },
        [&](bool returned) {
            remove_leftovers(path("run"));
            EXPECT_TRUE(!returned || !fs::exists(folder(1)));
            for (const int64_t step : checkpoint_steps(path("run"))) load_checkpoint(folder(step), *learner);
            EXPECT_EQ(checkpoint_steps(path("run")).back(), 2);
        });
    EXPECT_GT(rotation.errors, 5);
    save();
    const FailedCalls load = fail_everywhere(
        folder_, [] {}, [&] { load_checkpoint(folder(2), *learner); }, [](bool) {});
    EXPECT_GT(load.errors, 20);
    for (const std::string& call : load.ignored) EXPECT_TRUE(call.starts_with("close ")) << call;
}

TEST_F(FailingCalls, OfAStore) {
    spill(path("rows.jsonl"), chain_rows(20));
    StoreRequest request;
    request.folder = path("cache/prepared");
    request.datasets.push_back({.path = path("rows.jsonl")});
    request.encode.vocab_size = chain_vocab;
    request.progress.write = [](std::string_view) {};
    const FailedCalls calls = fail_everywhere(
        folder_, [&] { remove_tree(path("cache")); }, [&] { build_store(request); },
        [&](bool returned) {
            const std::string found = fs::exists(request.folder) ? listing(request.folder) : "";
            EXPECT_TRUE(!returned || found.ends_with(".h5"));
            EXPECT_TRUE(found.empty() || found.ends_with(".h5")) << "left: " << found;
            const StoreResult again = build_store(request);
            EXPECT_EQ(again.reused, !found.empty());
            EXPECT_EQ(again.store.size(), 20);
        });
    EXPECT_GT(calls.errors, 20);
    // Another process may write there too: the lock says so, but nothing depends on it.
    for (const std::string& call : calls.ignored)
        EXPECT_TRUE(call.starts_with("close ") || call == "open " + request.folder) << call;
}

TEST_F(FailingCalls, OfAnExport) {
    const auto learner = tiny_learner(tiny_config(Architecture::qwen3), DType::f32, 1, 8);
    const auto encoder = std::make_shared<const Encoder>(nullptr, EncodeOptions{.vocab_size = 29});
    const auto write = [&](DType stored) {
        export_model({.folder = path("out/model"),
                      .config = learner->config(),
                      .parameters = learner->parameters(),
                      .weights = learner->weights(),
                      .stored = stored,
                      .source_folder = "",
                      .encoder = encoder,
                      .tokenizer_source = ""});
    };
    std::string whole;
    const FailedCalls calls = fail_everywhere(
        folder_,
        [&] {
            remove_tree(path("out"));
            write(DType::f32);
            whole = slurp(path("out/model/model.safetensors"));
        },
        [&] { write(DType::bf16); },
        [&](bool returned) {
            const std::string config =
                fs::exists(path("out/model/config.json")) ? slurp(path("out/model/config.json")) : "";
            const bool is_old = config.find("float32") != config.npos, is_new = config.find("bfloat16") != config.npos;
            EXPECT_TRUE(is_new || !returned);
            EXPECT_TRUE(!is_old || slurp(path("out/model/model.safetensors")) == whole);
            // An empty folder that cannot be removed does not undo an export; the next one sweeps it.
            EXPECT_TRUE(returned || listing(path("out/model")).find(".tmp-") == std::string::npos);
        });
    EXPECT_GT(calls.errors, 15);
    for (const std::string& call : calls.ignored)
        EXPECT_TRUE(call.starts_with("close ") || call.starts_with("open ") || call.starts_with("rmdir ")) << call;
}

}  // namespace
}  // namespace colonnade
