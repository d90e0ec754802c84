// Exports: complete folders whose weights have the trained bits; they keep the config of the source folder; they
// replace an older export completely or not at all; the export program writes the same as the end of a run.

#include <cmath>
#include <csignal>

#include "data/text/choose_template.h"
#include "data/text/tokenizer_training.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_run.h"
#include "train/folders/export.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> markers = {"<|im_start|>", "<|im_end|>"};

/// A model with random weights and a real tokenizer.
class Export : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        std::string text;
        for (int i = 0; i < 200; ++i)
            text += fmt::format("the noun number {} means a count of {} and of {}\n", i, 7 * i, i % 9);
        spill(path("text.txt"), text);
        quietly([&] {
            train_tokenizer({.text_files = {path("text.txt")},
                             .output = path("toy"),
                             .vocab_size = 330,
                             .special_tokens = markers});
        });
        encoder_ = std::make_shared<const Encoder>(Tokenizer::load(path("toy.model")), EncodeOptions{});
        config_ = tiny_config();
        make_learner();
    }
    ModelConfig tiny_config() const {
        ModelConfig c;
        c.vocab_size = 330;
        c.hidden_size = 16;
        c.intermediate_size = 24;
        c.num_hidden_layers = 2;
        c.num_attention_heads = c.num_key_value_heads = 4;
        c.head_dim = 4;
        c.windows = {0, 0};
        c.bos_token_id = 1;
        c.eos_token_ids = {2};
        return c;
    }
    void make_learner() {
        learner_ = std::make_unique<Learner>(config_, LearnerOptions{.training = false});
        initialize(learner_->parameters(), {.seed = 8, .range = config_.initializer_range}, learner_->weights());
    }
    ExportRequest request(const std::string& name, DType stored = DType::f32) const {
        return {.folder = path(name),
                .config = learner_->config(),
                .parameters = learner_->parameters(),
                .weights = learner_->weights(),
                .stored = stored,
                .source_folder = "",
                .encoder = encoder_,
                .tokenizer_source = path("toy.model")};
    }
    std::vector<float> read_back(const std::string& name) const {
        const ModelConfig config = read_model_config(path(name));
        const Learner reader(config, {.training = false});
        load_weights(reader.parameters(), config, path(name), reader.weights());
        const float* w = reader.weights().as<float>();
        return {w, w + reader.weights().numel()};
    }
    std::vector<float> weights() const {
        const float* w = learner_->weights().as<float>();
        return {w, w + learner_->weights().numel()};
    }
    Json json(const std::string& name) const { return read_json_file(path(name)); }
    /// Every file of a folder, with its content.
    std::map<std::string, std::string> contents(const std::string& name) const {
        std::map<std::string, std::string> all;
        for (const auto& entry : fs::recursive_directory_iterator(path(name)))
            all[fs::relative(entry.path(), path(name))] = entry.is_regular_file() ? slurp(entry.path()) : "a folder";
        return all;
    }

    ModelConfig config_;
    std::shared_ptr<const Encoder> encoder_;
    std::unique_ptr<Learner> learner_;
};

TEST_F(Export, IsACompleteFolder) {
    export_model(request("model"));
    EXPECT_EQ(listing(path("model")),
              "config.json generation_config.json model.safetensors tokenizer.json tokenizer.model "
              "tokenizer_config.json");
    EXPECT_TRUE(read_back("model") == weights());
    EXPECT_EQ(json("model/config.json"), [&] {
        Json expected = to_json(config_);
        expected["torch_dtype"] = "float32";
        return expected;
    }());
    EXPECT_EQ(slurp(path("model/tokenizer.model")), slurp(path("toy.model")));

    const int32_t im_end = *encoder_->tokenizer()->piece_id("<|im_end|>");
    EXPECT_EQ(json("model/generation_config.json"), (Json{{"bos_token_id", 1}, {"eos_token_id", {2, im_end}}}));
    const Json tokenizer = json("model/tokenizer_config.json");
    EXPECT_EQ(tokenizer.at("bos_token"), "<s>");
    EXPECT_EQ(tokenizer.at("eos_token"), "</s>");
    EXPECT_EQ(tokenizer.at("tokenizer_class"), "PreTrainedTokenizerFast");
    EXPECT_EQ(tokenizer.at("chat_template"), ChatTemplate::built_in("chatml")->source());

    // What was written encodes as the model did that training used.
    const TextFolder text = read_text_folder(path("model"));
    ASSERT_EQ(text.templates.size(), 1u);
    EXPECT_EQ(text.tokenizer->path(), path("model/tokenizer.json"));
    EXPECT_EQ(text.tokenizer->document_prefix(), encoder_->tokenizer()->document_prefix());
    for (const std::string line : {"the noun  number 7", " a count\n\nof <|im_end|> 9", "caf\u00e9 </s>"})
        EXPECT_EQ(text.tokenizer->encode(line), encoder_->tokenizer()->encode(line)) << line;
}

TEST_F(Export, StoresHalfPrecisionRoundedToNearest) {
    for (const auto& [stored, spelled, name, bits] :
         {std::tuple{DType::bf16, "BF16", "bfloat16", 8}, {DType::f16, "F16", "float16", 11}}) {
        export_model(request(name, stored));
        EXPECT_EQ(json(std::string(name) + "/config.json").at("torch_dtype"), name);
        const SafetensorsReader file(path(name));
        for (const TensorInfo& info : file.tensors()) EXPECT_EQ(info.stored, spelled);
        const std::vector<float> found = read_back(name), exact = weights();
        // The smallest normal number of f16 is 2^-14: below it, steps stay 2^-24.
        const double smallest = stored == DType::f16 ? std::ldexp(1.0, -14) : 0;
        double worst = 0;
        for (size_t i = 0; i < exact.size(); ++i) {
            const double w = exact[i], error = std::abs(found[i] - w) / std::max(std::abs(w), smallest);
            if (w != 0) worst = std::max(worst, error);
        }
        EXPECT_LE(worst, std::ldexp(1.0, -bits)) << name;
        EXPECT_GT(worst, std::ldexp(0.9, -bits)) << name << " is not stored in half precision";
    }
}

TEST_F(Export, KeepsTheDtypeOfTheSourceUnlessAsked) {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
        fs::create_directories(path("source"));
        export_model(request("source", dtype));
        ExportRequest r = request("model");
        r.source_folder = path("source");
        r.stored.reset();
        EXPECT_EQ(export_model(r), dtype);
        EXPECT_EQ(json("model/config.json").at("torch_dtype"), json("source/config.json").at("torch_dtype"));
        EXPECT_EQ(SafetensorsReader(path("model")).tensors().front().dtype, dtype);
        r.stored = DType::f32;
        EXPECT_EQ(export_model(r), DType::f32);
    }
    ExportRequest r = request("model");
    r.stored.reset();
    EXPECT_EQ(export_model(r), DType::f32) << "there is no source";
}

TEST_F(Export, TellsWhatOverflowsFloat16) {
    export_model(request("source", DType::f16));
    float* weights = learner_->weights().as<float>();
    weights[3] = 65519, weights[5] = -70000;
    weights[7] = 65520;  // rounds to infinity
    const std::string message = expect_error(Exit::numerics, "2 weights are beyond float16",
                                             [&] { export_model(request("model", DType::f16)); });
    EXPECT_NE(message.find("the largest is 70000 in '"), std::string::npos) << message;
    EXPECT_FALSE(fs::exists(path("model/config.json")));
    ExportRequest r = request("model");
    r.source_folder = path("source");
    r.stored.reset();
    quietly([&] { EXPECT_EQ(export_model(r), DType::f32) << "nobody asked for float16"; });
    weights[5] = weights[7] = 65519;
    EXPECT_EQ(export_model(r), DType::f16);
}

TEST_F(Export, WritesAFolderForAGgufFile) {
    const std::string file = golden_file("gguf/qwen3.gguf");
    config_ = read_model_config(file);
    make_learner();
    load_weights(learner_->parameters(), config_, file, learner_->weights());
    EncodeOptions none;
    ExportRequest r = request("model");
    r.encoder = std::make_shared<const Encoder>(nullptr, none);
    r.source_folder = file;
    r.stored.reset();
    EXPECT_EQ(export_model(r), DType::f32);
    EXPECT_EQ(to_json(read_model_config(path("model"))), to_json(config_));
    EXPECT_TRUE(read_back("model") == weights());
}

TEST_F(Export, KeepsAHeadThatIsNotTiedAnyMore) {
    fs::create_directories(path("source"));
    Json source = to_json(config_);
    source["tie_word_embeddings"] = true;
    spill(path("source/config.json"), source.dump());
    ExportRequest r = request("model");
    r.source_folder = path("source");
    export_model(r);
    EXPECT_EQ(json("model/config.json").at("tie_word_embeddings"), false);
    EXPECT_TRUE(read_back("model") == weights());
}

TEST_F(Export, LeavesATiedHeadOut) {
    config_.tie_word_embeddings = true;
    make_learner();
    export_model(request("model"));
    EXPECT_EQ(SafetensorsReader(path("model")).find("lm_head.weight"), nullptr);
    EXPECT_TRUE(read_back("model") == weights());
}

TEST_F(Export, KeepsTheSourcesConfigButForTheDtype) {
    for (const char* key : {"dtype", "torch_dtype"}) {
        fs::create_directories(path("source"));
        Json source = to_json(config_);
        source.erase("torch_dtype");
        source[key] = "bfloat16";
        source["some_new_key"] = {{"kept", true}};
        spill(path("source/config.json"), source.dump());
        spill(path("source/generation_config.json"), R"({"temperature": 0.6, "eos_token_id": 99})");
        ExportRequest r = request("model");
        r.source_folder = path("source");
        export_model(r);
        source[key] = "float32";
        EXPECT_EQ(json("model/config.json"), source);
        const Json generation = json("model/generation_config.json");
        EXPECT_EQ(generation.at("temperature"), 0.6);
        std::vector<int32_t> ends = encoder_->stop_ids();
        ends.insert(ends.begin(), 99);
        EXPECT_EQ(generation.at("eos_token_id"), ends) << "the model's own stay";
    }
}

TEST_F(Export, CopiesTheTokenizersFolderButForTheChatTemplate) {
    fs::create_directories(path("source"));
    const std::vector<std::string> names = {"tokenizer.json", "special_tokens_map.json"};
    for (const std::string& name : names) spill(path("source/" + name), "content of " + name);
    spill(path("source/chat_template.jinja"), "of another chat");
    spill(path("source/tokenizer_config.json"), R"({"bos_token": "<s>", "chat_template": "of another chat"})");
    fs::copy(path("toy.model"), path("source/tokenizer.model"));
    spill(path("source/model.safetensors"), "not a tokenizer file");
    ExportRequest r = request("model");
    r.tokenizer_source = path("source");
    export_model(r);
    for (const std::string& name : names) EXPECT_EQ(slurp(path("model/" + name)), "content of " + name);
    EXPECT_EQ(slurp(path("model/tokenizer.model")), slurp(path("toy.model")));
    EXPECT_FALSE(fs::exists(path("model/chat_template.jinja")));
    EXPECT_EQ(json("model/tokenizer_config.json"),
              (Json{{"bos_token", "<s>"}, {"chat_template", ChatTemplate::built_in("chatml")->source()}}));
    EXPECT_TRUE(read_back("model") == weights());
}

TEST_F(Export, LeavesTheModelsOwnTemplateAndFilesAlone) {
    fs::create_directories(path("source/chat_templates"));
    export_model(request("source"));
    spill(path("source/chat_template.jinja"), ChatTemplate::built_in("chatml")->source() + "{# own #}");
    spill(path("source/chat_templates/tool_use.jinja"), "{{ tools }}");
    const TextFolder text = read_text_folder(path("source"));
    EncodeOptions options;
    options.chat_template = choose_template(text, own_template, {});
    encoder_ = std::make_shared<const Encoder>(text.tokenizer, options);
    ExportRequest r = request("model");
    r.tokenizer_source = r.source_folder = path("source");
    export_model(r);
    EXPECT_EQ(contents("model"), contents("source"));
}

TEST_F(Export, CopiesNoFileThatALinkLeadsTo) {
    export_model(request("source"));
    spill(path("secret"), "{}");
    fs::create_symlink(path("secret"), path("source/special_tokens_map.json"));
    ExportRequest r = request("model");
    r.tokenizer_source = r.source_folder = path("source");
    expect_error(Exit::data, "special_tokens_map.json: is a symbolic link to " + path("secret"),
                 [&] { export_model(r); });
    // A Hugging Face cache consists of links to its own blobs.
    fs::create_directories(path("hub/snapshots"));
    fs::create_directories(path("hub/blobs"));
    fs::remove(path("source/special_tokens_map.json"));
    fs::rename(path("source"), path("hub/snapshots/1"));
    fs::rename(path("hub/snapshots/1/tokenizer.json"), path("hub/blobs/0123456789abcdef0123456789abcdef01234567"));
    fs::create_symlink("../../blobs/0123456789abcdef0123456789abcdef01234567", path("hub/snapshots/1/tokenizer.json"));
    r.tokenizer_source = r.source_folder = path("hub/snapshots/1");
    EXPECT_NO_THROW(export_model(r));
    EXPECT_FALSE(fs::is_symlink(path("model/tokenizer.json")));
}

TEST_F(Export, WithoutATokenizerHasNone) {
    encoder_ = std::make_shared<const Encoder>(nullptr, EncodeOptions{.vocab_size = 330});
    export_model(request("model"));
    EXPECT_EQ(listing(path("model")), "config.json generation_config.json model.safetensors");
    EXPECT_EQ(json("model/generation_config.json").at("eos_token_id"), config_.eos_token_ids);
}

TEST_F(Export, ReplacesAnOlderExport) {
    export_model(request("new"));
    fs::create_directories(path("model"));
    for (const char* stale :
         {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
          "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"})
        spill(path("model/") + stale, "stale");
    fs::create_directories(path("model/.weights"));
    spill(path("model/.weights/model.safetensors"), "of an export that was killed");
    fs::create_directories(path("model/.weights.tmp-99999999"));
    spill(path("model/.weights.tmp-99999999/model.safetensors"), "of another one");
    spill(path("model/tokenizer.json.tmp-99999999"), "of another one");
    spill(path("model/README.md"), "the user's");
    export_model(request("model"));
    auto found = contents("model");
    EXPECT_EQ(found.extract("README.md").mapped(), "the user's");
    EXPECT_EQ(found, contents("new"));
}

TEST_F(Export, OverItsOwnSourceReadsItFirst) {
    export_model(request("model"));
    const auto before = contents("model");
    encoder_ = std::make_shared<const Encoder>(Tokenizer::load(path("model/tokenizer.model")), EncodeOptions{});
    ExportRequest r = request("model");
    r.source_folder = path("model");
    r.tokenizer_source = path("model/tokenizer.model");
    export_model(r);
    EXPECT_EQ(contents("model"), before);
    r.tokenizer_source = path("model");
    export_model(r);
    EXPECT_EQ(contents("model"), before);
}

TEST_F(Export, OnAFullDiskLeavesTheOlderOneWhole) {
    export_model(request("model"));
    const auto before = contents("model");
    initialize(learner_->parameters(), {.seed = 9, .range = config_.initializer_range}, learner_->weights());
    for (const rlim_t limit : {0, 1000, 30'000}) {
        const int exit = exit_of_child([&] {
            std::signal(SIGXFSZ, SIG_IGN);
            const rlimit bytes{limit, limit};
            setrlimit(RLIMIT_FSIZE, &bytes);
            export_model(request("model"));
            return 0;
        });
        EXPECT_EQ(exit, static_cast<int>(Exit::storage)) << limit << " bytes";
        EXPECT_EQ(contents("model"), before) << limit << " bytes";
    }
    export_model(request("model"));
    EXPECT_NE(contents("model"), before);
}

// --- The programs ---

class ExportProgram : public Export {
  protected:
    void SetUp() override {
        Export::SetUp();
        std::string rows;
        for (int i = 0; i < 60; ++i)
            rows += fmt::format(
                R"({{"messages": [{{"role": "user", "content": "number {}"}}, {{"role": "assistant", "content": "a count of {}"}}]}})"
                "\n",
                i, i % 9);
        spill(path("chat.jsonl"), rows);
        spill(path("config.yaml"),
              fmt::format("model:\n  hidden_size: 16\n  intermediate_size: 24\n  num_hidden_layers: 2\n"
                          "  num_attention_heads: 4\n  tie_word_embeddings: true\n"
                          "tokenizer_name_or_path: {}\ndatasets:\n  - path: {}\nmax_length: 64\noutput_dir: {}\n"
                          "num_train_epochs: 1\nreport_to: none\nthreads: 1\n",
                          path("toy.model"), path("chat.jsonl"), path("run")));
        train(path("config.yaml"));
        checkpoint_ = checkpoint_folder(path("run"), checkpoint_steps(path("run")).back());
    }
    std::string checkpoint_;
};

TEST_F(ExportProgram, GivesWhatTheRunExported) {
    const Program::Result result = run("export", {checkpoint_, path("again")});
    EXPECT_EQ(result.exit, 0) << result.err;
    for (const auto& [name, content] : contents("again")) EXPECT_TRUE(content == slurp(path("run/" + name))) << name;
    EXPECT_EQ(listing(path("again")),
              "config.json generation_config.json model.safetensors tokenizer.json tokenizer.model "
              "tokenizer_config.json");

    EXPECT_EQ(run("export", {checkpoint_, path("half"), "--dtype", "bfloat16"}).exit, 0);
    EXPECT_EQ(json("half/config.json").at("torch_dtype"), "bfloat16");
}

TEST_F(ExportProgram, GivesAFolderThatGenerates) {
    const std::vector<std::string> arguments = {path("run"), "-p",        "number 12", "--max-new-tokens",
                                                "5",         "--threads", "1"};
    const Program::Result once = run("generate", arguments), again = run("generate", arguments);
    EXPECT_EQ(once.exit, 0) << once.err;
    EXPECT_TRUE(once.out.starts_with("> number 12\n")) << once.out;
    EXPECT_EQ(once.out, again.out);
    EXPECT_EQ(
        run("generate", {path("run"), "-p", "a", "-p", "number 3", "--logits-out", path("logits"), "--threads", "1"})
            .exit,
        0);
    const SafetensorsReader logits(path("logits"));
    ASSERT_TRUE(logits.find("logits") && logits.find("logits.1")) << "of both prompts";
    EXPECT_LT(logits.find("input_ids")->shape[1], logits.find("input_ids.1")->shape[1]);
}

TEST_F(ExportProgram, OverwritesNothing) {
    const auto before = contents("run");
    const Program::Result result = run("export", {checkpoint_, path("run")});
    EXPECT_EQ(result.exit, static_cast<int>(Exit::config));
    EXPECT_EQ(result.err, fmt::format("export: error: {}: already contains a model; give a new folder\n", path("run")));
    EXPECT_EQ(contents("run"), before);
}

}  // namespace
}  // namespace colonnade
