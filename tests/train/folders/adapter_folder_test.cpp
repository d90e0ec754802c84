// PEFT's adapters: its files load and give PEFT's logits and gradients (tests/golden/make_lora_golden.py); our files
// equal those that PEFT writes; anything beyond plain LoRA is an error that names the key.

#include "train/folders/adapter_folder.h"

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"
#include "tests/support/file_test.h"
#include "tests/support/golden_values.h"
#include "tests/support/paths.h"
#include "tests/support/relative_error.h"
#include "tests/support/tiny_model.h"
#include "train/model/weight_folder.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

// --- Golden values ---------------------------------------------------------------------------------------------------

class PeftGolden : public testing::TestWithParam<std::string> {};

TEST_P(PeftGolden, LossAndGradientsAreThoseOfPeft) {
    const std::string folder = golden_file("lora/" + GetParam());
    const AdapterConfig adapter = read_adapter_config(folder);
    const std::string base = project_file(adapter.base);
    const SafetensorsReader golden(folder + "/golden.safetensors"), of_base(base + "/golden.safetensors");
    const Batch batch = golden_batch(of_base);
    const ModelConfig config = read_model_config(base);
    const auto learner = [&](DType dtype) {
        auto result = std::make_unique<Learner>(config, LearnerOptions{.max_packs = batch.packs,
                                                                       .max_length = batch.length,
                                                                       .head_chunk = 16,
                                                                       .dtype = dtype,
                                                                       .lora = adapter.lora});
        const WeightFolder weights(result->base_parameters(), config, base);
        result->fill_base([&](const Parameter& p, const Tensor& into) { weights.read(p, into); });
        result->fill_weights([&](const Tensor& flat) { load_adapter(folder, result->parameters(), flat); });
        return result;
    };
    for (const DType dtype : {DType::f64, DType::f32}) {
        const auto l = learner(dtype);
        l->begin_step();
        l->accumulate({}, batch, {.total = batch.target_weight});
        const double loss = l->loss().mean(), expected = golden_values<double>(golden, "loss")[0];
        EXPECT_NEAR(loss, expected, (dtype == DType::f64 ? 1e-12 : 1e-6) * expected);
        EXPECT_GT(std::abs(loss - golden_values<double>(of_base, "loss")[0]), 1e-3) << "the adapters change nothing";
        const auto gradients = numbers_of(*l, l->gradients());
        for (const Parameter& p : l->parameters().all()) {
            const auto g = golden_values<double>(golden, "grad.base_model.model." + p.name);
            ASSERT_EQ(std::ssize(g), p.size()) << p.name;
            EXPECT_LE(relative_error(gradients.data() + p.begin, g), dtype == DType::f64 ? 1e-9 : 1e-4) << p.name;
        }
        EXPECT_EQ(golden.tensors().size(), 2 + l->parameters().all().size());
    }
    // The merged model has the same logits, seen by the loss of each target.
    const auto l = learner(DType::f64);
    merge_lora(adapter.lora, l->parameters(), l->weights(), l->base_parameters(), l->base());
    l->fill_weights([&](const Tensor& flat) {
        for (const Parameter& p : l->parameters().all())
            if (p.is_adapter()) std::fill_n(flat.as<double>() + p.begin, p.size(), 0.0);
    });
    std::vector<double> nll;
    l->evaluate({}, batch, &nll);
    const auto logits = golden_values<double>(golden, "logits");
    const auto vocab = static_cast<size_t>(config.vocab_size);
    for (size_t i = 0; i < nll.size(); ++i) {
        const double* row = logits.data() + static_cast<size_t>(batch.rows[i]) * vocab;
        double sum = 0;
        for (size_t j = 0; j < vocab; ++j) sum += std::exp(row[j]);
        EXPECT_NEAR(nll[i], std::log(sum) - row[batch.targets[i]], 1e-9);
    }
}

INSTANTIATE_TEST_SUITE_P(Folders, PeftGolden, testing::Values("llama_all", "qwen3_q_v_down_rslora", "llama_o_head"),
                         [](const auto& test) { return test.param; });

// --- Files -----------------------------------------------------------------------------------------------------------

class AdapterFolder : public FileTest {
  protected:
    const ModelConfig model_ = tiny_config(Architecture::llama);
    const AdapterConfig config_{
        {.rank = 3, .alpha = 4.5, .dropout = 0.1, .rslora = true, .targets = {"k_proj", "up_proj"}}, "models/base"};
    const ParameterList list_ = lora_parameters(model_, config_.lora);
    std::vector<float> values_ = std::vector<float>(static_cast<size_t>(list_.size()));

    void SetUp() override {
        FileTest::SetUp();
        for (const Parameter& p : list_.all())
            for (int64_t i = 0; i < p.size(); ++i)
                values_[static_cast<size_t>(p.begin + i)] = static_cast<float>(p.begin + i) / 7;
        write();
    }
    Tensor flat(std::vector<float>& values) const { return {values.data(), DType::f32, {std::ssize(values)}}; }
    void write() { write_adapter(folder_, config_, list_, flat(values_)); }
    void change(const std::string& key, const Json& value) const {
        Json json = read_json_file(path("adapter_config.json"));
        json[key] = value;
        spill(path("adapter_config.json"), json.dump());
    }
};

TEST_F(AdapterFolder, ReadsWhatItWrites) {
    ASSERT_TRUE(is_adapter_folder(folder_));
    const AdapterConfig found = read_adapter_config(folder_);
    EXPECT_EQ(found.lora, config_.lora);
    EXPECT_EQ(found.base, config_.base);
    std::vector<float> values(values_.size());
    load_adapter(folder_, list_, flat(values));
    EXPECT_EQ(values, values_);
    const SafetensorsReader reader(path("adapter_model.safetensors"));
    EXPECT_EQ(reader.tensors().size(), 8u);
    const TensorInfo* b = reader.find("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight");
    ASSERT_TRUE(b);
    EXPECT_EQ(b->shape, (std::vector<int64_t>{20, 3}));
    write();  // over the existing files
    remove_adapter(folder_);
    EXPECT_FALSE(is_adapter_folder(folder_));
}

TEST_F(AdapterFolder, ReadsPeftsDefaults) {
    spill(path("adapter_config.json"), R"({"peft_type": "LORA", "r": 8, "target_modules": "all-linear"})");
    const AdapterConfig found = read_adapter_config(folder_);
    EXPECT_EQ(found.lora,
              (LoraSettings{.rank = 8, .alpha = 8, .targets = {lora_modules().begin(), lora_modules().end()}}));
    EXPECT_EQ(found.base, "");
}

// PEFT lists both names of a classifier's head, whichever the model has.
TEST_F(AdapterFolder, ReadsThoseOfARewardModel) {
    change("task_type", "SEQ_CLS");
    for (const Json& saved : {Json(), Json{"score"}, Json{"classifier", "score"}}) {
        change("modules_to_save", saved);
        const AdapterConfig found = read_adapter_config(folder_);
        EXPECT_TRUE(found.score_head && found.lora.head) << saved;
    }
    change("modules_to_save", {"lm_head"});
    expect_error(Exit::data,
                 "key 'modules_to_save' should be [\"score\"] or absent, with task_type SEQ_CLS, found [\"lm_head\"]",
                 [&] { read_adapter_config(folder_); });
}

TEST_F(AdapterFolder, RejectsWhatIsNotPlainLora) {
    struct Bad {
        const char* key;
        Json value;
        std::string message;
    };
    const std::string modules = fmt::format("{}, or \"all-linear\"", fmt::join(lora_modules(), ", "));
    const Bad cases[] = {
        {"peft_type", "IA3", "should be \"LORA\", found \"IA3\""},
        {"peft_type", nullptr, "is missing; expected \"LORA\""},
        {"r", 0, "should be an integer >= 1 and < 16385, found 0"},
        {"r", "8", "should be an integer >= 1 and < 16385, found \"8\""},
        {"r", nullptr, "is missing; expected an integer >= 1 and < 16385"},
        {"r", INT64_MAX, "should be an integer >= 1 and < 16385, found 9223372036854775807"},
        {"r", UINT64_MAX, "should be an integer >= 1 and < 16385, found 18446744073709551615"},
        {"lora_alpha", "x", "should be a number >= 0 and < 1000000000, found \"x\""},
        {"lora_dropout", 1, "should be a number >= 0 and < 1, found 1"},
        {"use_rslora", 1, "should be true or false, found 1"},
        {"use_dora", true, "should be absent or empty: anything else is not supported, found true"},
        {"bias", "all", "should be \"none\", found \"all\""},
        {"modules_to_save", {"embed_tokens"}, "should be [\"lm_head\"] or absent, found [\"embed_tokens\"]"},
        {"modules_to_save", {"score"}, "should be [\"lm_head\"] or absent, found [\"score\"]"},
        {"rank_pattern",
         {{"q_proj", 4}},
         "should be absent or empty: anything else is not supported, found {\"q_proj\":4}"},
        {"alora_invocation_tokens", {5}, "should be absent or empty: anything else is not supported, found [5]"},
        {"a_key_of_the_future", true, "should be absent or empty: anything else is not supported, found true"},
        {"use_qalora", true, "should be absent or empty: anything else is not supported, found true"},
        {"init_lora_weights", "pissa",
         "should be true, false, \"gaussian\", \"orthogonal\" or \"eva\": others change the base as well"},
        {"init_lora_weights", "pissa_niter_16", "should be true, false, \"gaussian\""},
        {"init_lora_weights", "olora", "should be true, false, \"gaussian\""},
        {"layers_to_transform", {0}, "should be absent or empty: anything else is not supported, found [0]"},
        {"fan_in_fan_out", true, "should be absent or empty: anything else is not supported, found true"},
        {"target_modules",
         {"q_proj", "lm_head"},
         "should be a list of " + modules + ", found [\"q_proj\",\"lm_head\"]"},
        {"target_modules", ".*q_proj", "should be a list of " + modules + ", found \".*q_proj\""},
        {"target_modules", Json::array(), "should be a list of " + modules + ", found []"},
        {"base_model_name_or_path", 3, "should be a string, found 3"},
    };
    for (const Bad& bad : cases) {
        write();
        change(bad.key, bad.value);
        expect_error(Exit::data, path("adapter_config.json") + ": key '" + bad.key + "' " + bad.message,
                     [&] { read_adapter_config(folder_); });
    }
    spill(path("adapter_config.json"), "[]");
    expect_error(Exit::data, "expected an object, found []", [&] { read_adapter_config(folder_); });
    fs::remove(path("adapter_config.json"));
    expect_error(Exit::data, "not a folder of adapters: adapter_config.json is missing",
                 [&] { read_adapter_config(folder_); });
}

// The revision belongs to a name of the hub; whether the base is a folder decides.
TEST_F(AdapterFolder, BaseMayBeALongerNameThanAFileCanHave) {
    change("revision", "main");
    change("base_model_name_or_path", std::string(5000, 'a'));
    EXPECT_EQ(read_adapter_config(folder_).base, std::string(5000, 'a') + "@main");
    change("base_model_name_or_path", folder_);
    EXPECT_EQ(read_adapter_config(folder_).base, folder_);
    fs::create_symlink("circle", path("circle"));
    change("base_model_name_or_path", path("circle"));
    expect_error(Exit::storage, path("circle") + ": cannot look up: Too many levels of symbolic links",
                 [&] { read_adapter_config(folder_); });
}

// What PEFT 0.21 writes for plain LoRA: every key, most of them off.
TEST_F(AdapterFolder, ReadsEveryKeyOfPeftThatIsOff) {
    write();
    for (const char* key :
         {"alora_invocation_tokens", "arrow_config", "auto_mapping", "corda_config", "eva_config", "exclude_modules",
          "kasa_config", "layer_replication", "lora_ga_config", "megatron_config", "monteclora_config", "revision",
          "target_parameters", "trainable_token_indices", "use_bdlora", "velora_config"})
        change(key, nullptr);
    for (const char* key : {"ensure_weight_tying", "lora_bias", "use_qalora"}) change(key, false);
    change("loftq_config", Json::object());
    change("megatron_core", "megatron.core");
    change("peft_version", "0.21.2");
    change("qalora_group_size", 16);
    for (const Json& value : {Json(true), Json(false), Json("gaussian"), Json("eva"), Json("orthogonal")}) {
        change("init_lora_weights", value);
        EXPECT_EQ(read_adapter_config(folder_).lora.rank, config_.lora.rank);
    }
}

TEST_F(AdapterFolder, RejectsTensorsThatDoNotFit) {
    const auto load_as = [&](LoraSettings lora) {
        const ParameterList list = lora_parameters(model_, lora);
        std::vector<float> values(static_cast<size_t>(list.size()));
        load_adapter(folder_, list, flat(values));
    };
    LoraSettings other = config_.lora;
    other.rank = 4;
    expect_error(Exit::data, "up_proj.lora_A.weight' is [3, 12], expected [4, 12]; and 7 more problems",
                 [&] { load_as(other); });
    other = config_.lora;
    other.targets.insert("o_proj");
    expect_error(Exit::data, "o_proj.lora_A.weight' [3, 16] is missing; and 3 more problems", [&] { load_as(other); });
    other = config_.lora;
    other.targets.erase("k_proj");
    expect_error(Exit::data, "k_proj.lora_B.weight' belongs to no adapter; and 3 more problems",
                 [&] { load_as(other); });
    fs::remove(path("adapter_model.safetensors"));
    expect_error(Exit::data, "adapter_model.safetensors: the file is missing", [&] { load_as(config_.lora); });
}

}  // namespace
}  // namespace colonnade
