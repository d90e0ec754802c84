// Weights from folders and GGUF files: heads that are tied or not, other formats that are named, dtypes of exports.

#include "train/model/stored_weights.h"

#include "tests/support/file_test.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

class StoredWeightsTest : public FileTest {
  protected:
    // Writes a folder with a tied config, and the tensors of an untied model but those that `keep` refuses.
    template <typename Keep>
    void write_tied_folder(const Keep& keep, bool same_head) {
        const ModelConfig untied = tiny_config(Architecture::llama, false);
        const ParameterList list(untied);
        flat_.resize(static_cast<size_t>(list.size()));
        const Tensor flat(flat_.data(), DType::f32, {list.size()});
        initialize(list, {.seed = 3, .range = 1}, flat);
        if (same_head)
            std::memcpy(slice_of(flat, *list.named("lm_head.weight")).data,
                        slice_of(flat, *list.named("model.embed_tokens.weight")).data,
                        slice_of(flat, *list.named("lm_head.weight")).bytes());
        std::vector<NamedTensor> tensors = named_tensors(list, flat);
        std::erase_if(tensors, [&](const NamedTensor& t) { return !keep(t.name); });
        write_safetensors(folder_, tensors);
        Json json = to_json(untied);
        json["tie_word_embeddings"] = true;
        spill(path("config.json"), json.dump());
    }
    std::vector<float> loaded(const ModelConfig& config, const char* name) const {
        const ParameterList list(config);
        std::vector<float> flat(static_cast<size_t>(list.size()));
        load_weights(list, config, folder_, Tensor(flat.data(), DType::f32, {list.size()}));
        const Tensor slice = slice_of(Tensor(flat.data(), DType::f32, {list.size()}), *list.named(name));
        return {slice.as<float>(), slice.as<float>() + slice.numel()};
    }
    std::vector<float> written(const char* name) {
        const ParameterList list(tiny_config(Architecture::llama, false));
        const Tensor slice = slice_of(Tensor(flat_.data(), DType::f32, {list.size()}), *list.named(name));
        return {slice.as<float>(), slice.as<float>() + slice.numel()};
    }
    std::vector<float> flat_;
};

TEST_F(StoredWeightsTest, AHeadThatDiffersFromTheEmbeddingIsKeptUntied) {
    write_tied_folder([](const std::string&) { return true; }, false);
    const ModelConfig config = read_model_config(folder_);
    EXPECT_FALSE(config.tie_word_embeddings);
    EXPECT_EQ(config.notices, std::vector<std::string>{path("config.json") +
                                                       ": tie_word_embeddings is true, but lm_head.weight differs from "
                                                       "the embedding: the head is kept, untied"});
    EXPECT_EQ(loaded(config, "lm_head.weight"), written("lm_head.weight"));
    // A checkpoint or another config may say that it is tied: then nothing is dropped in silence either.
    ModelConfig tied = config;
    tied.tie_word_embeddings = true;
    expect_error(Exit::data, folder_ + ": 'lm_head.weight' differs from the embedding",
                 [&] { loaded(tied, "model.embed_tokens.weight"); });
}

TEST_F(StoredWeightsTest, AHeadThatIsTheEmbeddingStaysTied) {
    write_tied_folder([](const std::string&) { return true; }, true);
    const ModelConfig config = read_model_config(folder_);
    EXPECT_TRUE(config.tie_word_embeddings && config.notices.empty());
    EXPECT_EQ(loaded(config, "model.embed_tokens.weight"), written("model.embed_tokens.weight"));
}

TEST_F(StoredWeightsTest, ATiedModelMayStoreItsHeadAlone) {
    write_tied_folder([](const std::string& name) { return name != "model.embed_tokens.weight"; }, false);
    const ModelConfig config = read_model_config(folder_);
    EXPECT_TRUE(config.tie_word_embeddings);
    EXPECT_EQ(loaded(config, "model.embed_tokens.weight"), written("lm_head.weight"));
}

TEST_F(StoredWeightsTest, NamesOtherFormatsAndTheWayOut) {
    const std::pair<const char*, const char*> cases[] = {
        {"pytorch_model.bin",
         "found pytorch_model.bin: a PyTorch pickle, which can run code when it is read; transformers "
         "converts the folder: AutoModelForCausalLM.from_pretrained(FOLDER"},
        {"pytorch_model.bin.index.json", "found pytorch_model.bin.index.json: a PyTorch pickle"},
        {"pytorch_model-00001-of-00002.bin", "found pytorch_model-00001-of-00002.bin: a PyTorch pickle"},
        {"consolidated.00.pth", "found consolidated.00.pth: the original files of the model's maker"},
        {"consolidated.safetensors", "found consolidated.safetensors: the original files"},
        {"SmolLM2-Q4_K_M.gguf", "found SmolLM2-Q4_K_M.gguf: give the path of the GGUF file itself"},
        {"adapter_model.safetensors", "found adapter_model.safetensors: LoRA adapters, not a whole model"},
        {"tf_model.h5", "found tf_model.h5: TensorFlow's format"},
    };
    for (const auto& [name, message] : cases) {
        std::filesystem::create_directories(path(name));
        spill(path(name) + "/" + name, "");
        expect_error(Exit::data, path(name) + ": no config.json in this folder; " + message,
                     [&] { read_model_config(path(name)); });
        expect_error(Exit::data,
                     path(name) +
                         ": neither model.safetensors nor model.safetensors.index.json in this "
                         "folder; " +
                         message,
                     [&] { StoredWeights(path(name)); });
    }
    expect_error(Exit::data,
                 "meta-llama/Llama-3.2-1B: no such folder or file; a model of the Hugging Face hub is "
                 "hf://meta-llama/Llama-3.2-1B",
                 [] { read_model_config("meta-llama/Llama-3.2-1B"); });
    const std::string message =
        expect_error(Exit::data, path("absent") + ": no such", [&] { StoredWeights(path("absent")); });
    EXPECT_TRUE(message.ends_with("no such folder or file")) << message;
    expect_error(Exit::data, "neither model.safetensors nor", [&] { StoredWeights{folder_}; });
}

TEST_F(StoredWeightsTest, AGgufFileIsAModel) {
    for (const std::string arch : {"llama", "qwen2", "qwen3"}) {
        const std::string file = golden_file("gguf/" + arch + ".gguf");
        const ModelConfig config = read_model_config(file);
        EXPECT_EQ(to_json(config),
                  to_json(parse_model_config(read_json_file(golden_file("gguf/" + arch + ".json")), "x")));
        const ParameterList list(config);
        std::vector<float> found(static_cast<size_t>(list.size())), expected = found;
        load_weights(list, config, file, Tensor(found.data(), DType::f32, {list.size()}));
        load_weights(list, config, golden_file("gguf/" + arch + ".safetensors"),
                     Tensor(expected.data(), DType::f32, {list.size()}));
        EXPECT_EQ(found, expected) << arch;
        EXPECT_NE(found, std::vector<float>(found.size())) << arch;
    }
    spill(path("text.gguf"), "text");
    expect_error(Exit::data, path("text.gguf"), [&] { read_model_config(path("text.gguf")); });
}

TEST_F(StoredWeightsTest, ExportsKeepTheDtypeOfMostElements) {
    std::vector<float> values(200, 1.0f);
    const auto tensor = [&](const char* name, int64_t n) {
        return NamedTensor{name, Tensor(values.data(), DType::f32, {n}), {n}};
    };
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        const std::string file = path(name_of(dtype)) + ".safetensors";
        write_safetensors_file(file, {tensor("a", 10), tensor("b", 100)}, dtype);
        EXPECT_EQ(StoredWeights(file).export_dtype(), dtype);
    }
    EXPECT_EQ(StoredWeights(golden_file("gguf/llama.gguf")).export_dtype(), DType::f32);
}

}  // namespace
}  // namespace colonnade
