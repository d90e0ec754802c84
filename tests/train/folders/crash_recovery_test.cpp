// Power cuts at every moment of a save, a rotation, a store's build, an export and the writing of logs
// (tests/support/crash_states.h). In every state of the disk the next start finds what had been promised: the newest
// checkpoint that was reported as saved, with all its bits; a whole store, or none; a whole export, or none.
// The same checks find the loss if fsyncs of files or of folders are left out.

#include <thread>

#include "data/store/build_store.h"
#include "data/text/tokenizer_training.h"
#include "engine/io/json.h"
#include "tests/support/crash_states.h"
#include "tests/support/tiny_lora.h"
#include "tests/support/tiny_run.h"
#include "train/folders/background_save.h"
#include "train/folders/export.h"
#include "train/log/metrics_log.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class CrashRecovery : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        fs::create_directory(path("disk"));
    }
    /// The folder that is recorded, and the folder in which states are looked at.
    std::string disk(const std::string& name) const { return path("disk/" + name); }
    std::string after(const std::string& name) const { return states_ + "/" + name; }
    void TearDown() override {
        fs::remove_all(states_);
        FileTest::TearDown();
    }

    std::string states_ = folder_for_states(testing::TempDir() + "colonnade-states");

    /// Runs `body` on "disk", then `check` on what after() holds in every state. `check` returns what is wrong.
    void expect_recovery(int64_t states, const std::function<void(RecordedFiles&)>& body,
                         const std::function<std::string(int64_t marks)>& check) {
        RecordedFiles files(path("disk"));
        {
            const ReplacedFileSystem replaced(files);
            body(files);
        }
        const auto look = [&](const DiskState& state, int64_t marks) -> std::string {
            materialise(state, states_);
            try {
                return check(marks);
            } catch (const std::exception& e) {
                return e.what();
            }
        };
        const auto whole = CrashStates(files).run(states_wanted(states), look);
        EXPECT_EQ(whole.broken, 0) << whole.first;
        EXPECT_GE(whole.states, states_wanted(states));
        fmt::print("{} states of the disk at {} operations\n", whole.states, files.operations().size());
        RecordProperty("states", static_cast<int>(whole.states));
        for (const Syncs broken : {Syncs::no_files, Syncs::no_folders})
            EXPECT_GT(CrashStates(files, broken).run(100, look).broken, 0) << "a missing fsync is not found";
    }
};

// --- Checkpoints ---

class CrashedSaves : public CrashRecovery {
  protected:
    using Numbers = std::vector<std::vector<double>>;
    static Numbers numbers(const Learner& learner) { return state_of(learner); }
    static TrainerState state(int64_t step) {
        return {.step = step, .since_log = {}, .data_key = "key", .config_yaml = "seed: 42\n"};
    }
    /// Changes all numbers, as a step of training does.
    void step() {
        ++steps_;
        for (const StateArray& array : arrays_of(*learner_))
            for (const Parameter& p : learner_->parameters().all()) {  // what is between them stays 0
                const Tensor numbers = slice_of(array.parts.at(0).values, p);
                for (int64_t i = 0; i < p.size(); ++i) numbers.as<float>()[i] += 0.25f + static_cast<float>(steps_ % 3);
            }
        learner_->set_updates(steps_);
        expected_[steps_] = numbers(*learner_);
    }
    /// The next start: at least step `promised`, each checkpoint whole.
    std::string resume(int64_t promised) {
        const std::string run = after("out/run");
        if (fs::exists(run)) remove_leftovers(run);
        const std::vector<int64_t> steps = checkpoint_steps(run);
        if ((steps.empty() ? 0 : steps.back()) < promised)
            return fmt::format("checkpoint {} is lost; there are {}", promised, steps);
        for (const int64_t step : steps) {
            if (load_checkpoint(checkpoint_folder(run, step), *loaded_).step != step) return "another step";
            if (numbers(*loaded_) != expected_.at(step)) return fmt::format("checkpoint {} has other bits", step);
        }
        return "";
    }
    std::unique_ptr<Learner> learner_ = tiny_learner(tiny_config(Architecture::qwen3), DType::f32, 1, 32),
                             loaded_ = tiny_learner(tiny_config(Architecture::qwen3), DType::f32, 1, 32);
    int64_t steps_ = 0;
    std::map<int64_t, Numbers> expected_;
};

TEST_F(CrashedSaves, InTheForegroundWithRotation) {
    expect_recovery(
        3000,
        [&](RecordedFiles& files) {
            make_folders(disk("out/run"));
            for (int i = 0; i < 3; ++i) {
                step();
                save_checkpoint(checkpoint_folder(disk("out/run"), steps_), *learner_, state(steps_));
                files.mark();
                rotate_checkpoints(disk("out/run"), {.keep = 1});
            }
        },
        [&](int64_t marks) { return resume(marks); });
}

TEST_F(CrashedSaves, InTheBackground) {
    expect_recovery(
        2500,
        [&](RecordedFiles& files) {
            make_folders(disk("out/run"));
            BackgroundSave saver(*learner_);
            for (int i = 0; i < 3; ++i) {
                step();
                saver.begin(checkpoint_folder(disk("out/run"), steps_), state(steps_), 2);
                step();  // training goes on
                saver.wait();
                files.mark();
            }
        },
        [&](int64_t marks) { return resume(marks == 0 ? 0 : 2 * marks - 1); });
}

TEST_F(CrashedSaves, OfAdapters) {
    learner_ = lora_learner(tiny_config(Architecture::qwen3), DType::f32, lora_of(), 1, 32);
    loaded_ = lora_learner(tiny_config(Architecture::qwen3), DType::f32, lora_of(), 1, 32);
    expect_recovery(
        1000,
        [&](RecordedFiles& files) {
            make_folders(disk("out/run"));
            for (int i = 0; i < 2; ++i) {
                step();
                save_checkpoint(checkpoint_folder(disk("out/run"), steps_), *learner_, state(steps_));
                files.mark();
            }
        },
        [&](int64_t marks) { return resume(marks); });
}

// --- Token stores ---

TEST_F(CrashRecovery, AStoreIsWholeOrBuiltAgain) {
    spill(path("rows.jsonl"), chain_rows(40));
    const auto request = [&](const std::string& folder) {
        StoreRequest r;
        r.folder = folder;
        r.datasets.push_back({.path = path("rows.jsonl")});
        r.encode.vocab_size = chain_vocab;
        r.progress.write = [](std::string_view) {};
        return r;
    };
    std::string bytes;
    expect_recovery(
        1500,
        [&](RecordedFiles& files) {
            bytes = slurp(build_store(request(disk("cache/prepared"))).path);
            files.mark();
        },
        [&](int64_t marks) -> std::string {
            const StoreResult again = build_store(request(after("cache/prepared")));
            if (slurp(again.path) != bytes) return "another store";
            if (listing(after("cache/prepared")) != fs::path(again.path).filename()) return "leftovers stay";
            return marks > 0 && !again.reused ? "a store that was complete is lost" : "";
        });
}

// --- Exports ---

class CrashedExports : public CrashRecovery {
  protected:
    using Contents = std::map<std::string, std::string>;
    void SetUp() override {
        CrashRecovery::SetUp();
        std::string text;
        for (int i = 0; i < 200; ++i) text += fmt::format("number {} means a count of {} and of {}\n", i, 7 * i, i % 9);
        spill(path("text.txt"), text);
        quietly([&] {
            train_tokenizer(
                {.text_files = {path("text.txt")}, .output = path("toy"), .vocab_size = 290, .special_tokens = {}});
        });
        encoder_ = std::make_shared<const Encoder>(Tokenizer::load(path("toy.model")), EncodeOptions{});
        ModelConfig config = tiny_config(Architecture::qwen3);
        config.vocab_size = 290;
        model_ = tiny_learner(config, DType::f32, 1, 8);
        adapters_ = lora_learner(config, DType::f32, lora_of(), 1, 8);
    }
    ExportRequest request(const Learner& learner, const std::string& folder, DType stored) const {
        return {.folder = folder,
                .config = learner.config(),
                .parameters = learner.parameters(),
                .weights = learner.weights(),
                .stored = stored,
                .source_folder = "",
                .encoder = encoder_,
                .tokenizer_source = path("toy.model")};
    }
    void write(const std::string& what, const std::string& folder) const {
        if (what == "adapters")
            export_adapter(request(*adapters_, folder, DType::f32), *adapters_->options().lora);
        else
            export_model(request(*model_, folder, what == "f32" ? DType::f32 : DType::bf16));
    }
    static Contents contents(const std::string& folder) {
        Contents all;
        for (const auto& entry : fs::directory_iterator(folder))
            if (entry.is_regular_file()) all[entry.path().filename()] = slurp(entry.path());
        return all;
    }
    /// Power cuts while the export `later` replaces the export `earlier` ("": none).
    void replace(const std::string& earlier, const std::string& later) {
        if (!earlier.empty()) write(earlier, disk("new/model"));
        const Contents before = earlier.empty() ? Contents{} : contents(disk("new/model"));
        Contents then;
        expect_recovery(
            500,
            [&](RecordedFiles& files) {
                write(later, disk("new/model"));
                files.mark();
                then = contents(disk("new/model"));
            },
            [&](int64_t marks) -> std::string {
                const bool there = fs::exists(after("new/model"));
                const Contents found = there ? contents(after("new/model")) : Contents{};
                // The file that says that a folder is complete.
                const auto complete = [&](const Contents& expected) -> std::string {
                    for (const char* mark : {"config.json", "adapter_config.json"})
                        if (expected.contains(mark)) return mark;
                    return "";
                };
                const std::string mark = complete(found);
                if (mark.empty()) return marks > 0 ? "the export is lost" : "";
                const auto holds = [&](const Contents& expected) {
                    return std::ranges::all_of(expected, [&](const auto& file) {
                        const auto same = found.find(file.first);
                        return same != found.end() && same->second == file.second;
                    });
                };
                const bool is_new = mark == complete(then) && found.at(mark) == then.at(mark);
                if (!is_new && marks > 0) return "the export is lost";
                if (!holds(is_new ? then : before))
                    return fmt::format("not the whole {} export", is_new ? "new" : "old");
                if (found.contains("config.json") && found.contains("adapter_config.json")) return "two models";
                return "";
            });
        // What a cut leaves does not stand in the way of the next export.
        write(later, after("new/model"));
        EXPECT_TRUE(contents(after("new/model")) == then);
    }
    std::shared_ptr<const Encoder> encoder_;
    std::unique_ptr<Learner> model_, adapters_;
};

TEST_F(CrashedExports, OfAModelToANewFolder) {
    replace("", "bf16");
}
TEST_F(CrashedExports, OfAModelOverAnother) {
    replace("f32", "bf16");
}
TEST_F(CrashedExports, OfAdaptersOverAModel) {
    replace("f32", "adapters");
}
TEST_F(CrashedExports, OfAModelOverAdapters) {
    replace("adapters", "f32");
}

// --- Logs ---

/// A cut may take the last lines of a log, because a line costs no fsync. What stays is a beginning of what was
/// written, and a resumed run goes on behind it.
TEST_F(CrashRecovery, ALogIsABeginningOfWhatWasWritten) {
    std::string whole;
    RecordedFiles files(path("disk"));
    {
        const ReplacedFileSystem replaced(files);
        MetricsLog log(disk("out/run"), {.jsonl = true, .tensorboard = true});
        for (int64_t step = 1; step <= 30; ++step)
            log.write(step, 0.5, {{"loss", 1.0 / static_cast<double>(step)}, {"num_tokens", 1000 * step}},
                      {fmt::format("{}:{}", path("rows.jsonl"), step)});
        whole = slurp(disk("out/run/metrics.jsonl"));
        const MetricsLog resumed(disk("out/run"), {.jsonl = true, .tensorboard = true}, 20);
        files.mark();
    }
    const std::string until_20 = whole.substr(0, whole.find("{\"step\":21"));
    int64_t cut_short = 0;
    const auto result =
        CrashStates(files).run(states_wanted(1000), [&](const DiskState& state, int64_t marks) -> std::string {
            materialise(state, states_);
            const MetricsLog resumed(after("out/run"), {.jsonl = true, .tensorboard = true}, 20);
            const std::string found = slurp(after("out/run/metrics.jsonl"));
            if (!until_20.starts_with(found)) return "lines that nobody wrote";
            if (!found.empty() && !found.ends_with('\n')) return "half a line";
            if (marks > 0 && found != until_20) return "lines of the resumed log are lost";
            cut_short += found.size() < until_20.size();
            return "";
        });
    EXPECT_EQ(result.broken, 0) << result.first;
    EXPECT_GE(result.states, states_wanted(1000));
    EXPECT_GT(cut_short, 0) << "the cuts did nothing";
    fmt::print("{} states of the disk at {} operations\n", result.states, files.operations().size());
}

}  // namespace
}  // namespace colonnade
