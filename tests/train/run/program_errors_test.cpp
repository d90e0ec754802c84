// Bad input to the real programs: the right exit code, one line "<program>: error: ..." that names the file or key, and
// no file overwritten.

#include <sys/stat.h>

#include <csignal>

#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class Errors : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config("max_steps: 3\n");
    }
    /// Runs a program and checks the error; all other lines on stderr must be progress.
    void expect_failure(const std::string& program, const std::vector<std::string>& arguments, Exit exit,
                        const std::vector<std::string>& parts, const std::function<void()>& setup = {}) const {
        SCOPED_TRACE(fmt::format("{} {}", program, fmt::join(arguments, " ")));
        const auto before = files();
        const Program::Result result = run(program, arguments, setup);
        EXPECT_EQ(result.exit, static_cast<int>(exit)) << result.err;
        const std::string start = program + ": error: ";
        std::istringstream lines(result.err);
        std::string line, error;
        int errors = 0;
        while (std::getline(lines, line)) {
            EXPECT_EQ(errors, 0) << "after the error: " << line;
            const bool progress =
                line.starts_with("tokenising ") || line.starts_with("train ") || line.starts_with("step ");
            if (line.starts_with(start))
                error = line, ++errors;
            else
                EXPECT_TRUE(progress) << "neither an error nor progress: " << line;
        }
        EXPECT_EQ(errors, 1) << result.err;
        for (const std::string& part : parts)
            EXPECT_NE(error.find(part), std::string::npos) << error << "\n  lacks: " << part;
        EXPECT_EQ(error.find("internal"), std::string::npos) << error;
        for (const auto& [name, content] : before) {
            const bool records = name.ends_with("/run.json") || name.ends_with("/train.log");  // the error as well
            EXPECT_TRUE(records || slurp(name) == content) << name << " has changed";
        }
        EXPECT_FALSE(fs::exists(path("run/model.safetensors")));
        EXPECT_FALSE(fs::exists(path("run/config.json")));
    }
    void expect_train_failure(const std::vector<std::string>& arguments, Exit exit,
                              const std::vector<std::string>& parts, const std::function<void()>& setup = {}) const {
        std::vector<std::string> all = {config(), output("run")};
        all.insert(all.end(), arguments.begin(), arguments.end());
        expect_failure("train", all, exit, parts, setup);
    }
    std::map<std::string, std::string> files() const {
        std::map<std::string, std::string> all;
        for (const auto& entry : fs::recursive_directory_iterator(folder_))
            if (entry.is_regular_file() && entry.path().filename() != ".lock") all[entry.path()] = slurp(entry.path());
        return all;
    }
    /// A folder with a trained model, and tuning.yaml that starts from it.
    void make_model() const {
        train(config(), {output("base")});
        fs::remove_all(path("prepared"));
        std::string yaml = slurp(config());
        yaml.replace(0, yaml.find("datasets:"), "model_name_or_path: " + path("base") + "\n");
        spill(path("tuning.yaml"), yaml);
    }
    void expect_tuning_failure(Exit exit, const std::vector<std::string>& parts) const {
        expect_failure("train", {path("tuning.yaml"), output("run")}, exit, parts);
    }
};

TEST_F(Errors, Usage) {
    expect_failure("train", {}, Exit::config, {"no config and no model: expected CONFIG.yaml, or MODEL DATA"});
    expect_failure("prepare", {}, Exit::config, {"no config and no model"});
    expect_failure("export", {path("a")}, Exit::config, {"folder is required"});
    expect_failure("export", {path("a"), path("b"), "--dtype", "int3"}, Exit::config, {"--dtype", "int3"});
    expect_failure("generate", {}, Exit::config, {"model is required"});
    expect_failure("generate", {path("a"), "--top-p", "1.5"}, Exit::config, {"--top-p", "1.5"});
    expect_failure("generate", {path("a"), "--max-length", "-1"}, Exit::config, {"--max-length", "-1"});
    expect_failure("generate", {path("a"), "--frobnicate"}, Exit::config, {"--frobnicate"});
    expect_failure("train_tokenizer", {"--text", path("nowhere.txt"), "--output", path("t")}, Exit::data,
                   {path("nowhere.txt")});
}

TEST_F(Errors, Config) {
    expect_failure("train", {path("nowhere.yaml"), output("run")}, Exit::config, {path("nowhere.yaml")});
    expect_failure("train", {folder_, output("run")}, Exit::config, {folder_});
    expect_train_failure({"learning_rte=0.1"}, Exit::config, {"learning_rte", "learning_rate"});
    expect_train_failure({"learning_rate=fast"}, Exit::config, {"learning_rate", "fast"});
    expect_failure("train", {config()}, Exit::config, {"output_dir is missing"});
    expect_failure("prepare", {config(), "model.hidden_size=15", output("run")}, Exit::config, {"hidden_size 15"});
    spill(path("tab.yaml"), "model:\n\thidden_size: 3\n");
    expect_failure("train", {path("tab.yaml")}, Exit::config, {path("tab.yaml") + ":2"});
}

// A FIFO would wait for its other end for ever, and a device never ends.
TEST_F(Errors, OnlyRegularFilesAreOpened) {
    fs::create_directories(path("run"));
    ASSERT_EQ(mkfifo(path("run/metrics.jsonl").c_str(), 0600), 0);
    const Program::Result result = run("train", {config(), output("run")});
    EXPECT_EQ(result.exit, static_cast<int>(Exit::data)) << result.err;
    EXPECT_NE(result.err.find(path("run/metrics.jsonl") + ": is a FIFO"), std::string::npos) << result.err;
    expect_failure("train_tokenizer", {"--text", folder_, "--output", path("t")}, Exit::data, {folder_});
}

TEST_F(Errors, MissingDevice) {
    if (fs::exists("/dev/nvidia0")) GTEST_SKIP() << "this machine has a GPU";
    expect_train_failure({"device=cuda"}, Exit::config, {"device: cuda", "use device: cpu"});
}

TEST_F(Errors, Data) {
    const std::string file = path("train.jsonl"), good = slurp(file);
    fs::remove(file);
    expect_train_failure({}, Exit::data, {file});
    fs::create_directory(file);
    expect_train_failure({}, Exit::data, {file});
    fs::remove(file);
    if (geteuid() != 0) {
        spill(file, good);
        fs::permissions(file, fs::perms::none);
        expect_train_failure({}, Exit::data, {file});
        fs::permissions(file, fs::perms::owner_all);
    }
    struct Bad {
        const char* rows;
        std::vector<std::string> parts;
    };
    const Bad bad_rows[] = {
        {"", {"no rows"}},
        {"\n\n", {"no rows"}},
        {"{\"input_ids\": [1, 2], \"labels\": [1, 2]}\n{\"input_ids\": [1, 2\n", {":2:"}},
        {"{\"input_ids\": [1, 2], \"labels\": [1, 2]}\n\n{\"input_ids\": [1, 31], \"labels\": [1, 31]}\n",
         {":3:", "input_ids[1] is 31; expected 0 to 30"}},
        {"{\"input_ids\": [1, 2], \"labels\": [1]}\n", {":1:"}},
        {"{\"answer\": 42}\n", {":1:"}},
        {"[1, 2]\n", {": row 1:"}},
        {"{\"input_ids\": [1, 2], \"labels\": [-100, -100]}\n",
         {"no sample is left", "all dropped: 1 no trained token"}},
    };
    for (const Bad& bad : bad_rows) {
        SCOPED_TRACE(bad.rows);
        spill(file, bad.rows);
        std::vector<std::string> parts = bad.parts;
        if (parts[0] != "no sample is left") parts.push_back(file);
        expect_train_failure({}, Exit::data, parts);
        expect_failure("prepare", {config(), output("run")}, Exit::data, parts);
        EXPECT_FALSE(fs::exists(path("prepared")) && !fs::is_empty(path("prepared"))) << "a store of bad data";
    }
    spill(file, good);
    expect_train_failure({"max_length=3"}, Exit::data, {"no sample is left", "all dropped: 160 too long"});
}

TEST_F(Errors, Tokenizer) {
    spill(path("train.jsonl"), "{\"text\": \"some words\"}\n");
    const auto with = [&](const std::string& where) { return "tokenizer_name_or_path=" + path(where); };
    expect_train_failure({}, Exit::config, {path("train.jsonl") + ":1", "needs a tokenizer"});
    expect_train_failure({with("nowhere")}, Exit::data, {path("nowhere")});
    fs::create_directories(path("json"));
    expect_train_failure({with("json")}, Exit::data, {path("json")});
    spill(path("json/tokenizer.json"), "{}");
    expect_train_failure({with("json")}, Exit::data, {path("json/tokenizer.json"), "not a tokenizer.json"});
    fs::remove(path("json/tokenizer.json"));
    spill(path("json/vocab.json"), "{}");
    expect_train_failure({with("json")}, Exit::data, {path("json"), "but vocab.json", "save_pretrained", "input_ids"});
    fs::create_directories(path("bad"));
    for (const char* content : {"", "not a protobuf", "\x0a\xff\xff\xff\xff\x0f"}) {
        spill(path("bad/tokenizer.model"), content);
        expect_train_failure({with("bad")}, Exit::data, {path("bad/tokenizer.model")});
    }
}

/// Names that no file system holds, and names that JSON cannot.
TEST_F(Errors, Names) {
    const std::string name(300, 'x');
    expect_train_failure({"output_dir=" + path(name)}, Exit::storage, {path(name), "File name too long"});
    const std::string loop = folder_ + "_loop";
    fs::remove(loop);
    fs::create_symlink(loop, loop);
    expect_train_failure({"output_dir=" + loop + "/x"}, Exit::storage, {"Too many levels of symbolic links"});
    expect_train_failure({"datasets[0].path=" + loop}, Exit::data, {loop});
    fs::remove(loop);
    expect_train_failure({"datasets[0].path=" + path("d\xff.jsonl")}, Exit::config, {"is not UTF-8"});
    fs::create_directories(path("rows"));
    spill(path("rows/d\xff.jsonl"), "{\"input_ids\": [1, 2]}\n");
    expect_train_failure({"datasets[0].path=" + path("rows")}, Exit::data, {path("rows"), "rename it"});
}

/// What only the export reads is checked before training.
TEST_F(Errors, FilesOfTheExport) {
    make_model();
    for (const char* name : {"generation_config.json", "tokenizer_config.json"}) {
        for (const char* content : {"{\"a\": ", "[1]"}) {
            spill(path("base/") + name, content);
            expect_tuning_failure(Exit::data, {path("base/") + name});
        }
        fs::remove(path("base/") + name);
        fs::create_symlink("/etc/hostname", path("base/") + name);
        expect_tuning_failure(Exit::data, {path("base/") + name, "is a symbolic link to"});
        fs::remove(path("base/") + name);
    }
}

TEST_F(Errors, ModelFolder) {
    make_model();
    const std::string weights = path("base/model.safetensors"), whole = slurp(weights),
                      shape = slurp(path("base/config.json"));
    for (const size_t keep : {size_t{0}, size_t{7}, size_t{100}, whole.size() - 1}) {
        spill(weights, whole.substr(0, keep));
        expect_tuning_failure(Exit::data, {weights});
    }
    spill(weights, whole + "x");
    expect_tuning_failure(Exit::data, {weights});
    fs::remove(weights);
    expect_tuning_failure(Exit::data, {path("base")});
    spill(weights, whole);
    Json config = parse_json(shape, "config.json");
    config["intermediate_size"] = 40;
    spill(path("base/config.json"), config.dump());
    expect_tuning_failure(Exit::data,
                          {path("base"), "mlp.up_proj.weight", "is [32, 16], config.json makes it [40, 16]"});
    config["model_type"] = "mamba";
    spill(path("base/config.json"), config.dump());
    expect_tuning_failure(Exit::data, {path("base/config.json"), "model_type 'mamba' is not supported"});
    fs::remove(path("base/config.json"));
    expect_tuning_failure(Exit::data, {path("base"), "no config.json in this folder"});
    expect_failure("generate", {path("base"), "-p", "x"}, Exit::config,  // of the checkpoint, which is whole
                   {path("base/checkpoint-3"), "the run had no tokenizer"});
    spill(path("base/config.json"), shape);
    expect_failure("generate", {path("base"), "-p", "x"}, Exit::data, {path("base")});  // it has no tokenizer
    expect_failure("export", {path("base"), path("out")}, Exit::config, {path("base"), "is a model already"});
    expect_failure("export", {path("nowhere"), path("out")}, Exit::data, {path("nowhere"), "no such checkpoint"});
    expect_failure("export", {golden_file("gguf/llama.gguf"), path("out")}, Exit::config,
                   {"llama.gguf: is a model already", "export MODEL FILE.gguf"});
    EXPECT_FALSE(fs::exists(path("out")));
}

TEST_F(Errors, DamagedStore) {
    ASSERT_EQ(run("prepare", {config(), output("run")}).exit, 0);
    const std::string store = path("prepared/") + listing(path("prepared")), whole = slurp(store);
    for (const size_t keep : {size_t{0}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
        spill(store, whole.substr(0, keep));
        expect_train_failure({}, Exit::data, {store});
    }
    // One bit of what is read: of HDF5's own mark, of names, of settings and statistics. Other bytes are gaps.
    const Philox random{3, 0};
    for (const char* part : {"HDF", "colonnade token store", "store_format", "train_on_prompt", "learned_tokens"}) {
        std::string flipped = whole;
        const size_t at = whole.find(part);
        ASSERT_NE(at, std::string::npos) << part;
        flipped[at] = static_cast<char>(flipped[at] ^ (1 << random.below(at, 7)));
        spill(store, flipped);
        expect_train_failure({}, Exit::data, {store});
    }
    // A store under the key of other data is rejected.
    spill(store, whole);
    spill(path("train.jsonl"), chain_rows(50, 2));
    ASSERT_EQ(run("prepare", {config(), output("run")}).exit, 0);
    fs::remove(store);
    const std::string other = path("prepared/") + listing(path("prepared"));
    spill(other, whole);
    expect_train_failure({}, Exit::data, {other});
}

TEST_F(Errors, OutputFolder) {
    spill(path("file"), "in the way");
    expect_failure("train", {config(), output("file")}, Exit::storage, {path("file")});
    expect_failure("train", {config(), output("file/run")}, Exit::storage, {path("file/run")});
    if (geteuid() == 0) return;  // root may write anywhere
    fs::create_directories(path("closed"));
    fs::permissions(path("closed"), fs::perms::owner_read | fs::perms::owner_exec);
    expect_failure("train", {config(), output("closed/run")}, Exit::storage, {path("closed/run")});
    expect_failure("train", {config(), output("closed")}, Exit::storage, {path("closed")});
    fs::permissions(path("closed"), fs::perms::owner_all);
}

TEST_F(Errors, FullDisk) {
    ASSERT_EQ(run("train", {config(), output("run"), "max_steps=2"}).exit, 0);
    for (const char* name : {"config.json", "model.safetensors"}) fs::remove(path("run/") + name);
    const auto limited = [](rlim_t bytes) {
        return [bytes] {
            const rlimit limit{bytes, bytes};
            setrlimit(RLIMIT_FSIZE, &limit);
        };
    };
    const std::string checkpoint = slurp(path("run/checkpoint-2/state-00001-of-00001.h5"));
    ASSERT_GT(checkpoint.size(), 20'000u);
    // The checkpoint of step 4 does not fit on the disk; the run resumes from step 2 once there is room.
    const std::vector<std::string> resume = {config(), output("run"), "max_steps=4", "resume_from_checkpoint=auto"};
    const Program::Result result = run("train", resume, limited(20'000));
    EXPECT_EQ(result.exit, static_cast<int>(Exit::storage));
    EXPECT_NE(result.err.find("train: error: " + path("run/checkpoint-4")), std::string::npos) << result.err;
    EXPECT_EQ(checkpoint_steps(path("run")), std::vector<int64_t>{2});
    EXPECT_TRUE(slurp(path("run/checkpoint-2/state-00001-of-00001.h5")) == checkpoint);
    EXPECT_EQ(run("train", resume).exit, 0);
    EXPECT_EQ(checkpoint_steps(path("run")), (std::vector<int64_t>{2, 4}));

    fs::remove_all(path("prepared"));
    fs::remove_all(path("run"));
    expect_failure("prepare", {config(), output("new")}, Exit::storage, {path("prepared")}, limited(3000));
    EXPECT_TRUE(fs::is_empty(path("prepared"))) << listing(path("prepared"));
}

TEST_F(Errors, Memory) {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "the sanitizer itself takes terabytes of address space";
#endif
    expect_train_failure({"model.hidden_size=16384", "model.num_attention_heads=128", "model.intermediate_size=65536",
                          "model.num_hidden_layers=200"},
                         Exit::memory, {"memory"}, [] {
                             const rlimit limit{rlim_t{1} << 32, rlim_t{1} << 32};
                             setrlimit(RLIMIT_AS, &limit);
                         });
}

}  // namespace
}  // namespace colonnade
