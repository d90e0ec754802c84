// Folders whose matrices are stored in fewer bits. Golden values are those of bitsandbytes and PyTorch
// (tests/golden/make_quantised_golden.py).

#include "train/model/safetensors_weights.h"

#include "engine/io/json_keys.h"
#include "engine/io/sha256.h"
#include "tests/support/expect_error.h"
#include "tests/support/file_test.h"
#include "tests/support/gradient_check.h"
#include "tests/support/nf4_folder.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

const std::string golden_folder = golden_file("quantised_folder");

template <typename T>
std::vector<T> read_all(const SafetensorsWeights& weights, const std::string& name) {
    const TensorInfo& info = *weights.find(name);
    std::vector<T> values(static_cast<size_t>(info.numel()));
    weights.read(info, Tensor(values.data(), sizeof(T) == 4 ? DType::f32 : DType::f64, {std::ssize(values)}));
    return values;
}

TEST(SafetensorsWeights, AreThoseOfBitsandbytesAndPyTorch) {
    const Json golden = read_json_file(golden_file("quantised_golden.json")).at("folder");
    const SafetensorsWeights weights(golden_folder);
    EXPECT_EQ(weights.tensors().size(), 4u) << "their parts are no tensors of their own";
    for (const char* name : {"nf4", "fp4", "fp8"}) {
        const std::string tensor = std::string(name) + ".weight";
        ASSERT_NE(weights.find(tensor), nullptr) << name;
        EXPECT_EQ(weights.find(tensor)->shape, (std::vector<int64_t>{66, 192})) << name;
        const std::vector<float> values = read_all<float>(weights, tensor);
        EXPECT_EQ(sha256({reinterpret_cast<const char*>(values.data()), 4 * values.size()}), golden.at(name)) << name;
        const std::vector<double> wide = read_all<double>(weights, tensor);
        EXPECT_TRUE(std::equal(values.begin(), values.end(), wide.begin())) << name;
    }
    EXPECT_EQ(read_all<float>(weights, "norm.weight"), std::vector<float>(3, 1));
}

class QuantisedFolder : public FileTest {
  protected:
    /// The golden file, changed.
    void spill_changed(const std::function<void(std::string&)>& change) {
        std::string bytes = slurp(golden_folder + "/model.safetensors");
        change(bytes);
        spill(path("model.safetensors"), bytes);
    }
    static void replace(std::string& in, const std::string& what, const std::string& by) {
        ASSERT_EQ(what.size(), by.size());
        ASSERT_NE(in.find(what), in.npos) << what;
        in.replace(in.find(what), what.size(), by);
    }
    void expect_refused(const std::string& what, const std::string& by, const std::string& message) {
        spill_changed([&](std::string& bytes) { replace(bytes, what, by); });
        expect_error(Exit::data, message, [&] { SafetensorsWeights weights(folder_); });
    }
};

TEST_F(QuantisedFolder, ErrorsNameTheTensorAndWhatWasExpected) {
    spill(path("config.json"), R"({"quantization_config": {"weight_block_size": [48, 64]}})");
    expect_refused("nf4.weight.absmax", "nf4.weight.absmux", "tensor 'nf4.weight.absmax' is missing");
    expect_refused("\"shape\": [66, 192]", "\"shape\": [66, 190]",
                   "tensor 'fp4.weight': expected 6270 x U8, found 6336 x U8");
    expect_refused("\"shape\": [66, 192]", "\"shape\": [66, -92]", "key 'shape' should be two integers >= 1");
    expect_refused("\"blocksize\": 64", "\"blocksize\": 00", "invalid JSON");
    expect_refused("\"dtype\": \"bfloat16\"", "\"dtype\": \"int64_t8\"",
                   "key 'dtype' should be bfloat16, float16 or float32, found \"int64_t8\"");
    spill_changed([](std::string& bytes) {
        const size_t at = bytes.find("\"nested_offset\": ") + 17, end = bytes.find('}', at);
        bytes.replace(at, end - at, std::string("9e30") + std::string(end - at - 4, ' '));
    });
    expect_error(Exit::data, "key 'nested_offset' should be a number >= -1e+30 and < 1e+30, found 9e+30",
                 [&] { SafetensorsWeights weights(folder_); });
    expect_refused("\"fp8.weight\"", "\"fp9.weight\"", "expected a matrix 'fp8.weight' in F8_E4M3 beside it");
    spill(path("config.json"), R"({"quantization_config": {"weight_block_size": [128, 128]}})");
    spill_changed([](std::string&) {});
    expect_error(Exit::data, "tensor 'fp8.weight_scale_inv': expected [1, 2] for blocks of 128 x 128, found [2, 3]",
                 [&] { SafetensorsWeights weights(folder_); });
    spill(path("config.json"), R"({"quantization_config": {"weight_block_size": [0, 64]}})");
    expect_error(Exit::data, "weight_block_size should be two integers >= 1, found [0,64]",
                 [&] { SafetensorsWeights weights(folder_); });
}

TEST(QuantizationConfig, OtherWaysAreRefused) {
    const auto check = [](const std::string& text) {
        const Json json = parse_json(text, "test");
        return check_quantization(JsonKeys(json, "config.json"));
    };
    EXPECT_EQ(check("{}"), "");
    EXPECT_NE(
        check(R"({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}})").find("4 bits"),
        std::string::npos);
    EXPECT_NE(
        check(R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})").find("8 bits"),
        std::string::npos);
    for (const char* other : {R"({"quant_method": "bitsandbytes", "load_in_8bit": true})",
                              R"({"quant_method": "gptq", "bits": 4})", R"({"quant_method": "fp8"})", R"({"bits": 4})"})
        expect_error(Exit::data, "config.json: the weights are quantised in a way that is not read",
                     [&] { check(fmt::format(R"({{"quantization_config": {}}})", other)); });
}

/// A whole model in nf4 is the model whose matrices were quantised and widened.
TEST_F(QuantisedFolder, AModelIsThatOfItsWidenedMatrices) {
    const ModelConfig config = tiny_config(Architecture::llama);
    const ParameterList list(config);
    std::vector<float> expected(static_cast<size_t>(list.size())), found(expected.size());
    initialize(list, {.seed = 3, .range = 0.02}, tensor_of(expected, {list.size()}));
    const std::vector<float> before = expected;
    write_nf4_weights(folder_, list, tensor_of(expected, {list.size()}));
    EXPECT_NE(before, expected);
    load_weights(list, config, folder_, tensor_of(found, {list.size()}));
    EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace colonnade
