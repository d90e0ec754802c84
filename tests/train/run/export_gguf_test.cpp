// Export to GGUF: every family's file is read back with the same shape, the same bits and the same tokens. What
// llama.cpp computes from such files is compared by tests/llama_cpp/check_export.py.

#include <cmath>
#include <cstring>

#include "tests/support/paths.h"
#include "tests/support/tiny_run.h"
#include "train/folders/adapter_folder.h"
#include "train/model/weight_folder.h"
#include "train/run/export_source.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

std::vector<float> read_tensor(const std::string& file, const std::string& name) {
    const GgufReader reader(file);
    const TensorInfo* info = reader.find(name);
    require(info, "no tensor '{}'", name);
    std::vector<float> values(static_cast<size_t>(info->numel()));
    reader.read(*info, view_of(values));
    return values;
}

std::vector<float> read_parameter(const StoredWeights& weights, const std::string& name) {
    const TensorInfo* info = weights.find(name);
    require(info, "no '{}'", name);
    std::vector<float> values(static_cast<size_t>(info->numel()));
    weights.read(*info, view_of(values));
    return values;
}

// What a type makes of floats.
std::vector<float> rounded(const std::vector<float>& values, const GgufType& type) {
    const int64_t blocks = std::ssize(values) / type.block;
    std::vector<uint8_t> bytes(static_cast<size_t>(blocks) * type.bytes);
    std::vector<float> result(values.size());
    type.encode(values.data(), blocks, bytes.data());
    type.decode(bytes.data(), blocks, result.data());
    return result;
}

class ExportGguf : public FileTest {
  protected:
    GgufResult write(const std::string& source, GgufOptions options = {}) const {
        options.source = source;
        if (options.path.empty()) options.path = path("model.gguf");
        fs::remove(options.path);
        return export_to_gguf(options);
    }
    std::string file() const { return path("model.gguf"); }
    // The fields of a config that decide what a model computes. GGUF has no name for Mistral.
    static Json shape(ModelConfig c) {
        if (c.architecture == Architecture::mistral) c.architecture = Architecture::llama;
        c.windows.clear();
        c.initializer_range = 0.02;
        return to_json(c);
    }
    void expect_same_model(const std::string& source, const char* stored) const {
        const ModelConfig expected = read_model_config(source), found = read_model_config(file());
        EXPECT_EQ(shape(found), shape(expected)) << source;
        EXPECT_EQ(found.bos_token_id, expected.bos_token_id);
        const GgufType& type = *find_gguf_type(stored);
        const StoredWeights weights(file()), original(source);
        const ParameterList list(expected);
        for (const Parameter& p : list.all()) {
            const TensorInfo* info = weights.find(p.name);
            ASSERT_TRUE(info) << p.name;
            EXPECT_EQ(info->shape, p.shape);
            const GgufType& own = gguf_type_of(p.shape, type);
            EXPECT_EQ(info->stored, own.name) << p.name;
            EXPECT_TRUE(read_parameter(weights, p.name) == rounded(read_parameter(original, p.name), own))
                << source << " " << p.name << " as " << own.name;
        }
    }
};

TEST_F(ExportGguf, EveryFamilyIsReadBack) {
    for (const char* model :
         {"llama_tied", "llama_linear", "llama_untied_rope_llama3", "mistral_sliding_window", "qwen2_bias", "qwen3"}) {
        const std::string source = golden_file(fmt::format("models/{}", model));
        for (const char* type : {"F32", "BF16", "F16", "Q8_0"}) {
            const GgufResult result = write(source, {.type = find_gguf_type(type)});
            expect_same_model(source, type);
            const std::string notices = fmt::format("{}", fmt::join(result.notices, "\n"));
            EXPECT_EQ(notices.find("has no sliding window") != notices.npos,
                      std::string(model) == "mistral_sliding_window")
                << notices;
            EXPECT_TRUE(result.what.ends_with(fmt::format("parameters as {}", type))) << result.what;
        }
    }
    const GgufReader q8(file());
    EXPECT_EQ(q8.find("blk.0.ffn_norm.weight")->stored, "F32");
    EXPECT_EQ(q8.metadata().integer("general.file_type"), 7);
    EXPECT_EQ(q8.metadata().text("general.name"), "model");
}

TEST_F(ExportGguf, KeepsTheTypeOfTheSource) {
    const std::string half = golden_file("models/bfloat16_qwen3_head_128");
    write(half);
    const std::string stored = StoredWeights(half).export_dtype() == DType::bf16 ? "BF16" : "F32";
    EXPECT_EQ(GgufReader(file()).find("token_embd.weight")->stored, stored);
    expect_same_model(half, stored.c_str());
    // A GGUF file is a source as well.
    fs::rename(file(), path("source.gguf"));
    write(path("source.gguf"), {.type = find_gguf_type("Q8_0")});
    expect_same_model(path("source.gguf"), "Q8_0");
}

// Settings that golden models do not have; llama.cpp has no other betas than 32 and 1.
TEST_F(ExportGguf, WritesTheNumbersOfYarn) {
    fs::copy(golden_file("models/llama_yarn"), path("yarn"));
    const Json original = read_json_file(path("yarn/config.json"));
    const auto with = [&](const Json& changes) {
        Json config = original;
        config["rope_parameters"].update({{"beta_fast", 32}, {"beta_slow", 1}});
        config["rope_parameters"].update(changes);
        spill(path("yarn/config.json"), config.dump());
        write(path("yarn"));
    };
    with(Json::object());
    expect_same_model(path("yarn"), "F32");
    with({{"attention_factor", 1.5}});
    EXPECT_NEAR(read_model_config(file()).rope_scaling.attention_factor, 1.5, 1e-6);
    fs::remove(file());
    expect_error(Exit::data, "rope_scaling yarn has truncate false, which llama.cpp's architecture llama does not have",
                 [&] {
                     with({{"truncate", false}});
                 });
    expect_error(Exit::data, "rope_scaling yarn has beta_fast 4 and beta_slow 1 instead of 32 and 1", [&] {
        with({{"beta_fast", 4}});
    });
    EXPECT_FALSE(fs::exists(file()));
}

TEST_F(ExportGguf, RefusesWhatTheArchitectureDoesNotHave) {
    const auto refuses = [&](const char* model, const std::string& part,
                             const std::function<void(ModelConfig&)>& edit) {
        ModelConfig config = read_model_config(golden_file(fmt::format("models/{}", model)));
        edit(config);
        GgufPairs pairs;
        expect_error(Exit::data, "x.gguf: " + part, [&] { add_model_pairs(config, "x.gguf", pairs); });
    };
    refuses("llama_tied", "the model is a reward model", [](ModelConfig& c) { c.score_head = true; });
    refuses("qwen3", "attention_bias is true", [](ModelConfig& c) { c.qkv_bias = c.o_bias = true; });
    refuses("qwen2_bias", "4 heads of 16 are not hidden_size 32",
            [](ModelConfig& c) { c.num_attention_heads = 4, c.head_dim = 16, c.hidden_size = 32; });
    refuses("qwen3",
            "rope_scaling is llama3, which llama.cpp's architecture qwen3 does not have; export it as a folder",
            [](ModelConfig& c) { c.rope_scaling.kind = RopeScaling::Kind::llama3; });
}

// B of q and k has the row order of the matrices that it adapts, and alpha / rank is the scale.
TEST_F(ExportGguf, WritesAdapters) {
    for (const char* name : {"llama_all", "qwen3_q_v_down_rslora"}) {
        const std::string folder = golden_file(fmt::format("lora/{}", name));
        const AdapterConfig adapter = read_adapter_config(folder);
        const std::string base = project_file(adapter.base);
        const ModelConfig model = read_model_config(base);
        write(folder, {.base = base, .adapter = true});
        const GgufReader found(file());
        EXPECT_EQ(found.metadata().text("general.type"), "adapter");
        EXPECT_EQ(found.metadata().text("general.architecture"), name_of(model.architecture));
        EXPECT_EQ(found.metadata().text("adapter.type"), "lora");
        const double scale = *found.metadata().number("adapter.lora.alpha") / static_cast<double>(adapter.lora.rank);
        EXPECT_NEAR(scale, adapter.lora.scale(), 1e-6);
        const ParameterList list = lora_parameters(model, adapter.lora);
        EXPECT_EQ(found.tensors().size(), list.all().size());
        const SafetensorsReader peft(folder + "/adapter_model.safetensors");
        for (const char* module : {"q_proj", "v_proj", "down_proj"}) {
            const std::string gguf = module[0] == 'd' ? "ffn_down" : fmt::format("attn_{}", module[0]);
            for (const char part : {'a', 'b'}) {
                const std::string peft_name =
                    fmt::format("base_model.model.model.layers.1.{}.{}.lora_{}.weight",
                                module[0] == 'd' ? "mlp" : "self_attn", module, static_cast<char>(std::toupper(part)));
                const TensorInfo* info = peft.find(peft_name);
                ASSERT_TRUE(info) << peft_name;
                std::vector<float> expected(static_cast<size_t>(info->numel()));
                peft.read(*info, view_of(expected));
                std::vector<float> values = read_tensor(file(), fmt::format("blk.1.{}.weight.lora_{}", gguf, part));
                if (part == 'b' && module[0] == 'q' && model.architecture == Architecture::llama) {
                    EXPECT_NE(values, expected) << "rows are in another order";
                    std::vector<float> ordered(values.size());
                    const int64_t rank = info->shape[1], half = model.head_dim / 2;
                    for (int64_t row = 0; row < info->shape[0]; ++row) {
                        const int64_t head = row / model.head_dim, i = row % model.head_dim;
                        const int64_t stored = head * model.head_dim + 2 * (i % half) + i / half;
                        std::copy_n(values.data() + stored * rank, rank, ordered.data() + row * rank);
                    }
                    values = ordered;
                }
                EXPECT_TRUE(values == expected) << peft_name;
            }
        }
        expect_error(Exit::data, "holds adapters, not a model", [&] { read_model_config(file()); });
    }
    const std::string head = golden_file("lora/llama_o_head");
    expect_error(Exit::data, "the head was trained whole beside the adapters",
                 [&] { write(head, {.base = project_file(read_adapter_config(head).base), .adapter = true}); });
    fs::copy(golden_file("lora/llama_all"), path("zero"));
    Json config = read_json_file(path("zero/adapter_config.json"));
    const std::string base = project_file(config["base_model_name_or_path"].get<std::string>());
    config["lora_alpha"] = 0;
    spill(path("zero/adapter_config.json"), config.dump());
    expect_error(Exit::data, "lora_alpha is 0", [&] { write(path("zero"), {.base = base, .adapter = true}); });
}

// W + scale B A, in double.
TEST_F(ExportGguf, MergesAdaptersIntoTheirBase) {
    const std::string folder = golden_file("lora/llama_all");
    const AdapterConfig adapter = read_adapter_config(folder);
    const std::string base = project_file(adapter.base);
    write(folder, {.base = base});
    const SafetensorsReader peft(folder + "/adapter_model.safetensors");
    const auto part = [&](const char* which) {
        const TensorInfo* info =
            peft.find(fmt::format("base_model.model.model.layers.0.self_attn.k_proj.lora_{}.weight", which));
        std::vector<float> values(static_cast<size_t>(info->numel()));
        peft.read(*info, view_of(values));
        return std::pair(values, info->shape);
    };
    const auto [a, a_shape] = part("A");
    const auto [b, b_shape] = part("B");
    const std::string name = "model.layers.0.self_attn.k_proj.weight";
    const std::vector<float> before = read_parameter(StoredWeights(base), name),
                             after = read_parameter(StoredWeights(file()), name);
    double change = 0;
    for (int64_t row = 0; row < b_shape[0]; ++row)
        for (int64_t j = 0; j < a_shape[1]; ++j) {
            double sum = 0;
            for (int64_t r = 0; r < a_shape[0]; ++r)
                sum += static_cast<double>(b[row * a_shape[0] + r]) * a[r * a_shape[1] + j];
            const auto at = static_cast<size_t>(row * a_shape[1] + j);
            EXPECT_NEAR(after[at], before[at] + adapter.lora.scale() * sum, 1e-6);
            change = std::max(change, std::abs(adapter.lora.scale() * sum));
        }
    EXPECT_GT(change, 1e-3);
}

class ExportGgufProgram : public RunTest {
  protected:
    void refuses(const std::vector<std::string>& arguments, const std::string& error) const {
        const Program::Result result = run("export", arguments);
        EXPECT_EQ(result.exit, static_cast<int>(Exit::config)) << result.err;
        EXPECT_NE(result.err.find(error), std::string::npos) << result.err;
    }
};

TEST_F(ExportGgufProgram, GivesTheModelOfARunAndOverwritesNothing) {
    train(config(), {output("run"), "max_steps=4"});
    const std::string checkpoint = checkpoint_folder(path("run"), last_step(path("run")));
    const Program::Result result = run("export", {checkpoint, path("out/model.gguf")});
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_TRUE(result.out.starts_with(path("out/model.gguf") + ": step 4, ")) << result.out;
    EXPECT_TRUE(result.out.ends_with(" parameters as F32\n")) << result.out;
    EXPECT_EQ(result.err, "note: without a tokenizer the file takes and gives token ids alone\n");
    EXPECT_EQ(listing(path("out")), "model.gguf");
    ASSERT_EQ(run("export", {path("run"), path("folder.gguf")}).exit, 0) << "the folder that the run exported";
    const ParameterList list(read_model_config(path("run")));
    const StoredWeights trained(path("run"));
    for (const char* file : {"out/model.gguf", "folder.gguf"})
        for (const StoredWeights written(path(file)); const Parameter& p : list.all())
            EXPECT_TRUE(read_parameter(written, p.name) == read_parameter(trained, p.name)) << file << p.name;

    const std::string before = slurp(path("folder.gguf"));
    refuses({path("run"), path("folder.gguf")}, "folder.gguf: already exists; give the path of a new file");
    EXPECT_TRUE(slurp(path("folder.gguf")) == before);
    refuses({checkpoint, path("new"), "--dtype", "q8_0"}, "--dtype q8_0 is of GGUF files; give --format gguf");
    refuses({checkpoint, path("new.gguf"), "--adapter"}, "--adapter is for runs with finetuning_type lora");
    refuses({path("run"), path("new.gguf"), "--adapter"}, "--adapter is for adapters; this is a whole model");
    refuses({path("run"), path("new.gguf"), "--base", "x"}, "--base is for adapters; this is a whole model");
    refuses({checkpoint, path("new"), "--format", "onnx"}, "--format");
    EXPECT_EQ(run("export", {checkpoint, path("named"), "--format", "gguf", "--dtype", "q8_0"}).exit, 0);
    EXPECT_EQ(GgufReader(path("named")).metadata().integer("general.file_type"), 7);
    EXPECT_EQ(run("export", {checkpoint, path("a.gguf"), "--format", "safetensors"}).exit, 0);
    EXPECT_TRUE(fs::exists(path("a.gguf/model.safetensors")));
}

}  // namespace
}  // namespace colonnade
