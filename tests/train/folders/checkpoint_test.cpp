// Checkpoints: they restore every bit; damage to any byte is an error that names the file; a save that fails or dies
// leaves the previous checkpoint.

#include <sys/resource.h>

#include <csignal>

#include "engine/io/hdf5.h"
#include "engine/io/json.h"
#include "engine/io/sha256.h"
#include "tests/support/file_test.h"
#include "tests/support/tiny_model.h"
#include "train/folders/run_checkpoints.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

constexpr const char* files[] = {"config.yaml", "manifest.json", "model_config.json", "state-00001-of-00001.h5",
                                 "trainer_state.json"};

class Checkpoint : public FileTest {
  protected:
    static std::unique_ptr<Learner> learner_after(int updates, Architecture architecture = Architecture::qwen3) {
        auto learner = tiny_learner(tiny_config(architecture), DType::f32, 1, 32);
        const Context ctx;
        for (int i = 0; i < updates; ++i) {
            const Sample sample = random_sample(static_cast<uint64_t>(i), 0, {30}, learner->config().vocab_size);
            const Batch batch = make_batch({{&sample}});
            learner->begin_step();
            learner->accumulate(ctx, batch, {.total = batch.target_weight});
            learner->update(ctx, {}, 1e-2, 1);
            learner->result();
        }
        return learner;
    }
    static TrainerState state(int64_t step) {
        return {.step = step,
                .tokens_seen = (int64_t{1} << 53) + 1,
                .samples_seen = 77,
                .since_log = {.nll = 0.1, .weight = 1.0 / 3, .correct = 2},
                .data_key = "key",
                .config_yaml = "seed: 42\n"};
    }
    std::string saved(const Learner& learner, int64_t step) const {
        const std::string folder = checkpoint_folder(folder_, step);
        save_checkpoint(folder, learner, state(step));
        return folder;
    }
    /// Loading fails with a message that names `file`, and the learner keeps its state.
    static void expect_refused(const std::string& folder, const std::string& file, Learner& learner,
                               Exit exit = Exit::data) {
        const auto before = state_of(learner);
        expect_error(exit, file, [&] { load_checkpoint(folder, learner); });
        EXPECT_TRUE(state_of(learner) == before) << "loaded anyway";
    }
};

TEST_F(Checkpoint, RoundTrip) {
    const auto learner = learner_after(3);
    const std::string folder = saved(*learner, 3);
    EXPECT_EQ(listing(folder), fmt::format("{}", fmt::join(files, " ")));
    const auto other = learner_after(0);
    const TrainerState read = load_checkpoint(folder, *other), written = state(3);
    EXPECT_TRUE(state_of(*other) == state_of(*learner));
    EXPECT_EQ(other->updates(), 3);
    EXPECT_EQ(read.step, written.step);
    EXPECT_EQ(read.tokens_seen, written.tokens_seen);
    EXPECT_EQ(read.samples_seen, written.samples_seen);
    EXPECT_EQ(read.since_log.nll, written.since_log.nll);
    EXPECT_EQ(read.since_log.weight, written.since_log.weight);
    EXPECT_EQ(read.since_log.correct, written.since_log.correct);
    EXPECT_EQ(read.data_key, written.data_key);
    EXPECT_EQ(read.config_yaml, written.config_yaml);
    EXPECT_EQ(to_json(checkpoint_model(check_checkpoint(folder))), to_json(learner->config()));
}

TEST_F(Checkpoint, SameStateSameBytes) {
    const std::string a = saved(*learner_after(2), 2), b = saved(*learner_after(2), 3);
    EXPECT_TRUE(slurp(a + "/state-00001-of-00001.h5") == slurp(b + "/state-00001-of-00001.h5"));
}

TEST_F(Checkpoint, LoadsIntoALearnerForInference) {
    const auto learner = learner_after(2);
    const std::string folder = saved(*learner, 2);
    Learner inference(learner->config(), {.training = false});
    load_checkpoint(folder, inference);
    EXPECT_TRUE(values_of<float>(inference.weights()) == values_of<float>(learner->weights()));
}

TEST_F(Checkpoint, IsNeverOverwritten) {
    const std::string folder = saved(*learner_after(1), 1);
    const std::string before = slurp(folder + "/manifest.json");
    expect_error(Exit::storage, "already exists", [&] { save_checkpoint(folder, *learner_after(2), state(1)); });
    EXPECT_EQ(slurp(folder + "/manifest.json"), before);
    EXPECT_EQ(listing(folder_), "checkpoint-1");
}

// --- Damage ---

TEST_F(Checkpoint, TruncatedAnywhereIsRefused) {
    const std::string folder = saved(*learner_after(1), 1);
    const auto learner = learner_after(0);
    for (const std::string name : files) {
        const std::string file = folder + "/" + name, whole = slurp(file);
        for (const size_t keep : {size_t{0}, size_t{1}, size_t{8}, whole.size() / 3, whole.size() / 2, whole.size() - 2,
                                  whole.size() - 1}) {
            // The line break at the end of the manifest does not matter.
            if (name == "manifest.json" && keep == whole.size() - 1) continue;
            SCOPED_TRACE(fmt::format("{} cut to {} bytes", name, keep));
            spill(file, whole.substr(0, keep));
            expect_refused(folder, name, *learner);
        }
        spill(file, whole);
    }
    EXPECT_EQ(load_checkpoint(folder, *learner).step, 1);
}

TEST_F(Checkpoint, AnyFlippedBitIsRefused) {
    const std::string folder = saved(*learner_after(1), 1);
    const auto learner = learner_after(0);
    const Philox random{11, 0};
    for (const std::string name : files) {
        const std::string file = folder + "/" + name, whole = slurp(file);
        for (uint64_t i = 0; i < 150; ++i) {
            // Evenly over the file, the first and the last byte included.
            const size_t at = i * (whole.size() - 1) / 149;
            std::string flipped = whole;
            flipped[at] = static_cast<char>(flipped[at] ^ (1 << random.below(i, 8)));
            SCOPED_TRACE(fmt::format("{}: byte {} flipped to {}", name, at, flipped[at]));
            spill(file, flipped);
            expect_refused(folder, name, *learner);
        }
        spill(file, whole);
    }
    EXPECT_EQ(load_checkpoint(folder, *learner).step, 1);
}

TEST_F(Checkpoint, AnExtraByteIsRefused) {
    const std::string folder = saved(*learner_after(1), 1);
    const auto learner = learner_after(0);
    for (const std::string name : files) {
        const std::string file = folder + "/" + name, whole = slurp(file);
        spill(file, whole + "x");
        expect_refused(folder, name, *learner);
        spill(file, whole);
    }
}

TEST_F(Checkpoint, AMissingFileIsNamed) {
    const std::string folder = saved(*learner_after(1), 1);
    const auto learner = learner_after(0);
    for (const std::string name : files) {
        fs::rename(folder + "/" + name, path("aside"));
        expect_refused(folder, name, *learner);
        fs::create_directory(folder + "/" + name);
        expect_refused(folder, name, *learner);
        fs::remove(folder + "/" + name);
        fs::rename(path("aside"), folder + "/" + name);
    }
    expect_refused(path("checkpoint-9"), "checkpoint-9: no such checkpoint", *learner);
}

/// Rewrites the body and the hash of the manifest.
void rewrite_manifest(const std::string& folder, const std::function<void(Json&)>& change) {
    const std::string path = folder + "/manifest.json";
    Json body = read_json_file(path).at("body");
    change(body);
    spill(path, Json{{"body", body}, {"sha256", sha256(body.dump())}}.dump());
}

TEST_F(Checkpoint, OfAnotherVersionSaysSo) {
    const std::string folder = saved(*learner_after(1), 1);
    const auto learner = learner_after(0);
    rewrite_manifest(folder, [](Json& body) { body["version"] = 12; });
    expect_refused(folder, "manifest.json: checkpoint version 12, but this build reads versions 2 to 4", *learner,
                   Exit::config);
    rewrite_manifest(folder, [](Json& body) { body["version"] = 4, body.erase("files"); });
    expect_refused(folder, "manifest.json", *learner);
    rewrite_manifest(folder, [](Json& body) { body["version"] = "one"; });
    expect_refused(folder, "manifest.json", *learner);
    spill(folder + "/manifest.json", "[]");
    expect_refused(folder, "manifest.json", *learner);
}

TEST_F(Checkpoint, OfVersion2IsRead) {
    const auto saved_one = learner_after(2), learner = learner_after(0);
    const std::string folder = saved(*saved_one, 1);
    rewrite_manifest(folder, [&](Json& body) {
        body["version"] = 2;
        for (Json& file : body["files"]) {
            file.erase("pieces");
            file["sha256"] = sha256_file(folder + "/" + file["name"].get<std::string>());
        }
    });
    const std::string shard = folder + "/state-00001-of-00001.h5", whole = slurp(shard);
    std::string damaged = whole;
    damaged[whole.size() / 2] ^= 1;
    spill(shard, damaged);
    expect_refused(folder, shard, *learner);
    spill(shard, whole);
    EXPECT_EQ(load_checkpoint(folder, *learner).step, 1);
    EXPECT_TRUE(state_of(*learner) == state_of(*saved_one));
    rewrite_manifest(folder, [](Json& body) { body["version"] = 1; });
    expect_refused(folder, "manifest.json: checkpoint version 1, but", *learner, Exit::config);
}

/// Version 3 has one state file, of the whole buffers, without slices.
TEST_F(Checkpoint, OfVersion3IsRead) {
    const auto saved_one = learner_after(2), learner = learner_after(0);
    const std::string folder = saved(*saved_one, 1), shard = folder + "/state-00001-of-00001.h5";
    const int64_t n = saved_one->parameters().size();
    fs::remove(shard);
    Hdf5Writer old(shard);
    for (const StateArray& array : arrays_of(*saved_one)) old.write(array.name, array.read(nullptr).tensor());
    old.attribute("begin", int64_t{0});
    old.attribute("end", n);
    old.attribute("updates", int64_t{2});
    old.close();
    rewrite_manifest(folder, [&](Json& body) {
        body["version"] = 3;
        for (Json& file : body["files"])
            if (file["name"] == "state-00001-of-00001.h5") {
                file["bytes"] = fs::file_size(shard);
                file["pieces"] = Json::array({{{"bytes", fs::file_size(shard)}, {"sha256", sha256_file(shard)}}});
            }
    });
    EXPECT_EQ(load_checkpoint(folder, *learner).step, 1);
    EXPECT_TRUE(state_of(*learner) == state_of(*saved_one));
    EXPECT_EQ(learner->updates(), 2);
}

/// Older builds had fewer sums of losses.
TEST_F(Checkpoint, OfFewerLossSumsIsRead) {
    const std::string folder = saved(*learner_after(1), 1), path = folder + "/trainer_state.json";
    Json state = read_json_file(path);
    state["since_log"] = {1, 2, 3, 4, 5, 6, 7, 8, nullptr, 9};
    spill(path, state.dump());
    rewrite_manifest(folder, [&](Json& body) {
        for (Json& file : body["files"])
            if (file["name"] == "trainer_state.json") {
                file["bytes"] = fs::file_size(path);
                file["pieces"] = Json::array({{{"bytes", fs::file_size(path)}, {"sha256", sha256_file(path)}}});
            }
    });
    const LossSums sums = load_checkpoint(folder, *learner_after(0)).since_log;
    LossSums expected{.nll = 1, .weight = 2, .correct = 3, .more = {4, 5, 6, 7, 8}};
    expected.extremes[1] = 9;
    EXPECT_EQ(sums.numbers(), expected.numbers());
}

/// Files whose hashes are right, but which do not fit together.
TEST_F(Checkpoint, MustHoldEveryElementOnce) {
    const auto saved_one = learner_after(2), learner = learner_after(0);
    const int64_t n = saved_one->parameters().size();
    const auto of_shares = [&](const std::vector<Range>& shares) {
        const std::string folder = saved(*saved_one, 1);
        fs::remove(folder + "/state-00001-of-00001.h5");
        std::vector<std::string> names;
        for (size_t i = 0; i < shares.size(); ++i) {
            names.push_back(shard_name(static_cast<int>(i), static_cast<int>(shares.size())));
            Hdf5Writer file(folder + "/" + names.back());
            std::vector<int64_t> slices = {shares[i].begin, shares[i].end};
            const Range share = {std::clamp<int64_t>(shares[i].begin, 0, n), std::clamp<int64_t>(shares[i].end, 0, n)};
            for (const StateArray& array : arrays_of(*saved_one))
                file.write(array.name, array.read(nullptr, share).tensor());
            file.write("slices", Tensor(slices.data(), DType::i64, {1, 2}));
            file.attribute("updates", int64_t{2});
            file.close();
        }
        rewrite_manifest(folder, [&](Json& body) {
            Json listed = Json::array();
            for (const Json& file : body["files"])
                if (!is_shard_name(file["name"])) listed.push_back(file);
            for (const std::string& name : names) {
                const Json piece = {{"bytes", fs::file_size(folder + "/" + name)},
                                    {"sha256", sha256_file(folder + "/" + name)}};
                listed.push_back({{"name", name}, {"bytes", piece["bytes"]}, {"pieces", Json::array({piece})}});
            }
            body["files"] = listed;
        });
        return folder;
    };
    const auto expect = [&](const std::vector<Range>& shares, const std::string& message) {
        expect_refused(of_shares(shares), message, *learner);
        fs::remove_all(checkpoint_folder(folder_, 1));
    };
    expect({{0, n / 2}, {n / 2 + 1, n}}, fmt::format("holds elements from {} on, but those before end at", n / 2 + 1));
    expect({{0, n / 2}, {n / 2 - 1, n}}, fmt::format("holds elements from {} on, but those before end at", n / 2 - 1));
    expect({{0, n / 2}, {n / 2, n - 1}}, fmt::format("the files end at element {}, expected {}", n - 1, n));
    expect({{0, n / 2}, {n / 2, n + 1}}, fmt::format("holds elements {} to {}, but the model has {}", n / 2, n + 1, n));
    expect({{-1, n / 2}, {n / 2, n}}, "holds elements -1 to");
    expect({}, "has no file state-*.h5");
    const std::string folder = of_shares({{n / 3, n}, {0, 0}, {0, n / 3}});
    load_checkpoint(folder, *learner);
    EXPECT_TRUE(state_of(*learner) == state_of(*saved_one));
}

TEST_F(Checkpoint, OfAnotherModelIsRefused) {
    const std::string folder = saved(*learner_after(1), 1);
    for (const Architecture other : {Architecture::llama, Architecture::qwen2})
        expect_refused(folder, "trainer_state.json: the checkpoint contains a model of another shape",
                       *learner_after(0, other));
    ModelConfig wider = tiny_config(Architecture::qwen3);
    wider.intermediate_size += 2;
    expect_refused(folder, "another shape", *tiny_learner(wider, DType::f32, 1, 32));
}

// --- Disks that fill up and processes that die ---

class FileLimit : public Checkpoint {
  protected:
    /// Saves step 2 in a process that may write files of at most `bytes`; `deadly`: a longer write kills it.
    int save_with_limit(const Learner& learner, rlim_t bytes, bool deadly) const {
        return exit_of_child([&] {
            std::signal(SIGXFSZ, deadly ? SIG_DFL : SIG_IGN);
            const rlimit core{0, 0}, limit{bytes, bytes};
            setrlimit(RLIMIT_CORE, &core);
            setrlimit(RLIMIT_FSIZE, &limit);
            TrainerState s = state(2);
            s.config_yaml = "# " + std::string(400'000, '-') + "\n";  // longer than the shard, and written after it
            save_checkpoint(checkpoint_folder(folder_, 2), learner, s);
            return 0;
        });
    }
    void expect_only_the_first(const Learner& first) const {
        EXPECT_EQ(checkpoint_steps(folder_), std::vector<int64_t>{1});
        const auto learner = learner_after(0);
        EXPECT_EQ(load_checkpoint(checkpoint_folder(folder_, 1), *learner).step, 1);
        EXPECT_TRUE(state_of(*learner) == state_of(first));
    }
    // Limits within the shard's header, its data and its end (the other files are shorter), and within the config.
    static std::vector<rlim_t> limits(const std::string& folder) {
        const auto shard = static_cast<rlim_t>(fs::file_size(folder + "/state-00001-of-00001.h5"));
        return {0, 1, 100, 2000, shard / 2, shard - 1, shard, shard + 1000, 399'999};
    }
};

TEST_F(FileLimit, AFullDiskIsAnErrorAndLeavesThePreviousOne) {
    const auto first = learner_after(1), second = learner_after(2);
    const std::string folder = saved(*first, 1);
    for (const rlim_t limit : limits(folder)) {
        SCOPED_TRACE(fmt::format("files of at most {} bytes", limit));
        EXPECT_EQ(save_with_limit(*second, limit, false), static_cast<int>(Exit::storage));
        EXPECT_EQ(listing(folder_), "checkpoint-1");
        expect_only_the_first(*first);
    }
    EXPECT_EQ(save_with_limit(*second, 1'000'000, false), 0);
    EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{1, 2}));
}

TEST_F(FileLimit, AKilledSaveLeavesThePreviousOne) {
    const auto first = learner_after(1), second = learner_after(2);
    const std::string folder = saved(*first, 1);
    for (const rlim_t limit : limits(folder)) {
        SCOPED_TRACE(fmt::format("killed at byte {} of a file", limit));
        EXPECT_EQ(save_with_limit(*second, limit, true), 128 + SIGXFSZ);
        EXPECT_NE(listing(folder_), "checkpoint-1") << "died before it began";
        expect_only_the_first(*first);
        remove_leftovers(folder_);
        EXPECT_EQ(listing(folder_), "checkpoint-1");
    }
}

}  // namespace
}  // namespace colonnade
