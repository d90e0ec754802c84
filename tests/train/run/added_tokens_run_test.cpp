// Runs with added tokens from a user's view: the embedding grows by rows that are the mean of the others, the exported
// folder has the tokens, resuming gives the same bits, checkpoints generate, and frozen rows are refused.

#include "data/text/text_folder.h"
#include "data/text/tokenizer_training.h"
#include "engine/io/safetensors.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class AddedTokensRun : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        std::string text, rows;
        for (int i = 0; i < 200; ++i) text += fmt::format("number {} means a count of {} and of {}\n", i, 7 * i, i % 9);
        spill(path("text.txt"), text);
        quietly([&] {
            train_tokenizer(
                {.text_files = {path("text.txt")}, .output = path("text"), .vocab_size = 320, .special_tokens = {}});
        });
        for (int i = 0; i < 40; ++i)
            rows += fmt::format(
                R"({{"messages": [{{"role": "user", "content": "number {}"}}, {{"role": "assistant", "content": "<think>of {}</think>a count of {}"}}]}})"
                "\n",
                i, i, i % 9);
        spill(path("chat.jsonl"), rows);
        spill(path("base.yaml"),
              fmt::format(
                  "model: {{hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4}}\n"
                  "tokenizer_name_or_path: {}\nchat_template: plain\nlearning_rate: 0.02\nmax_steps: 3\n{}",
                  path("text.model"), common("base")));
        train(path("base.yaml"));
        spill(path("tokens.yaml"),
              fmt::format("model_name_or_path: {}\nspecial_tokens: {{pad_token: <|pad|>}}\nchat_template: chatml\n"
                          "add_special_tokens: [<|im_start|>, <|im_end|>]\nadd_tokens: [<think>, </think>]\n"
                          "pad_vocab_to_multiple_of: 16\nsave_steps: 1\nsave_total_limit: 0\n{}",
                          path("base"), common("run")));
    }
    std::string common(const std::string& output) const {
        return fmt::format("datasets: [{{path: {}}}]\nmax_length: 96\nreport_to: none\nthreads: 1\noutput_dir: {}\n",
                           path("chat.jsonl"), path(output));
    }
    std::string tokens() const { return path("tokens.yaml"); }
    std::vector<float> matrix(const std::string& folder, const std::string& name) const {
        const SafetensorsReader file(path(folder) + "/model.safetensors");
        std::vector<float> values(static_cast<size_t>(file.find(name)->numel()));
        file.read(*file.find(name), Tensor(values.data(), DType::f32, {std::ssize(values)}));
        return values;
    }
};

TEST_F(AddedTokensRun, GrowTheModelByTheMean) {
    const std::string printed = train(tokens(), {"max_steps=1", "learning_rate=1e-30", "warmup_ratio=0"});
    EXPECT_NE(
        printed.find("the tokenizer gets 5 tokens, ids from 320 on: <|pad|> <|im_start|> <|im_end|> <think> </think>"),
        std::string::npos)
        << printed;
    EXPECT_NE(printed.find("embedding and head grow from 320 to 336 rows"), std::string::npos) << printed;
    const Json config = read_json_file(path("run/config.json"));
    EXPECT_EQ(config.at("vocab_size"), 336);
    EXPECT_EQ(config.at("pad_token_id"), 320);
    for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
        const std::vector<float> before = matrix("base", name), after = matrix("run", name);
        ASSERT_EQ(before.size(), 320u * 32);
        ASSERT_EQ(after.size(), 336u * 32);
        EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin())) << name;
        for (size_t j = 0; j < 32; ++j) {
            double mean = 0;
            for (size_t row = 0; row < 320; ++row) mean += before[row * 32 + j] / 320.0;
            for (size_t row = 320; row < 336; ++row) EXPECT_NEAR(after[row * 32 + j], mean, 1e-7) << name;
        }
    }
    const TextFolder text = read_text_folder(path("run"));
    EXPECT_EQ(text.tokenizer->vocab_size(), 325);
    EXPECT_EQ(text.tokenizer->pad(), 320);
    EXPECT_EQ(text.tokenizer->piece_id("</think>"), 324);
    // A run that starts from the result adds nothing.
    const std::string again = train(tokens(), {"model_name_or_path=" + path("run"), "max_steps=1", output("again")});
    EXPECT_EQ(again.find("the tokenizer gets"), std::string::npos) << again;
    EXPECT_EQ(read_json_file(path("again/config.json")).at("vocab_size"), 336);
}

TEST_F(AddedTokensRun, ResumeAndGenerate) {
    train(tokens(), {"max_steps=6", "learning_rate=0.02"});
    fs::create_directories(path("stopped"));
    fs::copy(checkpoint_folder(path("run"), 3), checkpoint_folder(path("stopped"), 3));
    train(tokens(), {"max_steps=6", "learning_rate=0.02", output("stopped"), "resume_from_checkpoint=auto",
                     "prepared_path=" + path("run/prepared")});
    EXPECT_TRUE(slurp(path("stopped/model.safetensors")) == slurp(path("run/model.safetensors")));
    const auto generated = [&](const std::string& model) {
        const Program::Result result =
            run("generate", {model, "-p", "number 3", "--max-new-tokens", "8", "--threads", "1"});
        EXPECT_EQ(result.exit, 0) << result.err;
        return result.out;
    };
    EXPECT_EQ(generated(checkpoint_folder(path("run"), 6)), generated(path("run")));
    EXPECT_EQ(run("export", {checkpoint_folder(path("run"), 6), path("exported")}).exit, 0);
    for (const char* file : {"/tokenizer.json", "/tokenizer_config.json", "/config.json", "/model.safetensors"})
        EXPECT_TRUE(slurp(path("exported") + file) == slurp(path("run") + file)) << file;
}

TEST_F(AddedTokensRun, AreRefusedWhereTheirRowsStayFrozen) {
    expect_error(Exit::config,
                 "new rows of the embedding need training, but finetuning_type lora keeps the embedding frozen",
                 [&] { train(tokens(), {"finetuning_type=lora"}); });
    expect_error(Exit::config, "finetuning_type freeze keeps lm_head frozen: add lm_head to freeze_extra_modules", [&] {
        train(tokens(), {"finetuning_type=freeze", "freeze_extra_modules=embed_tokens"});
    });
    train(tokens(), {"finetuning_type=freeze", "freeze_extra_modules=embed_tokens,lm_head", "max_steps=2"});
    EXPECT_EQ(read_json_file(path("run/config.json")).at("vocab_size"), 336);
    EXPECT_EQ(run("export", {checkpoint_folder(path("run"), 2), path("exported")}).exit, 0);
    EXPECT_TRUE(slurp(path("exported/model.safetensors")) == slurp(path("run/model.safetensors")));
    // A role for a token that exists changes no row.
    train(tokens(),
          {"finetuning_type=lora", "special_tokens={pad_token: <unk>}", "add_special_tokens=none", "add_tokens=none",
           "pad_vocab_to_multiple_of=1", "chat_template=plain", "max_steps=1", output("roles")});
    EXPECT_EQ(read_text_folder(path("roles")).tokenizer->pad(), 0);
    // So does a pad token that does not exist: adapters leave it out.
    const std::string printed =
        train(tokens(), {"finetuning_type=lora", "add_special_tokens=none", "add_tokens=none",
                         "pad_vocab_to_multiple_of=1", "chat_template=plain", "max_steps=1", output("left_out")});
    EXPECT_NE(printed.find("special_tokens: the tokenizer has no <|pad|>"), std::string::npos) << printed;
    EXPECT_EQ(read_text_folder(path("left_out")).tokenizer->vocab_size(), 320)
        << slurp(path("left_out/tokenizer_config.json"));
    expect_error(Exit::config, "special_tokens: sep_token '<s>': expected bos_token",
                 [&] { train(tokens(), {"special_tokens={sep_token: <s>}"}); });
}

}  // namespace
}  // namespace colonnade
