// `generate` and `chat` from a user's view: every kind of model, prompts, options, and a conversation over a pipe.

#include <set>
#include <sstream>

#include "tests/support/small_tokenizer.h"
#include "tests/support/tiny_run.h"
#include "train/folders/checkpoint.h"

namespace colonnade {
namespace {

class GenerationPrograms : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        Json tokenizer = small_tokenizer_json({.special = {"<|im_start|>", "<|im_end|>"}});
        std::filesystem::create_directory(path("text"));
        spill(path("text/tokenizer.json"), tokenizer.dump());
        spill(path("text/tokenizer_config.json"), R"({"eos_token": "<|im_end|>"})");
        std::string rows;
        for (int i = 0; i < 60; ++i)
            rows += fmt::format(
                R"({{"messages": [{{"role": "user", "content": "number {}"}}, {{"role": "assistant", "content": "a count of {}"}}]}})"
                "\n",
                i, i % 9);
        spill(path("chat.jsonl"), rows);
        spill(path("base.yaml"),
              fmt::format(
                  "model: {{hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4, "
                  "max_position_embeddings: 100000}}\ntokenizer_name_or_path: {}\nlearning_rate: 0.02\n{}",
                  path("text"), common("base")));
        train("base.yaml");
    }
    std::string common(const std::string& output) const {
        return fmt::format(
            "datasets: [{{path: {}}}]\nmax_length: 64\nnum_train_epochs: 6\nper_device_train_batch_size: 2\n"
            "report_to: none\nthreads: 1\noutput_dir: {}\n",
            path("chat.jsonl"), path(output));
    }
    void train(const std::string& config) const {
        const Program::Result result = run("train", {path(config)});
        ASSERT_EQ(result.exit, 0) << result.err;
    }
    std::string checkpoint(const std::string& run_name) const {
        return checkpoint_folder(path(run_name), checkpoint_steps(path(run_name)).back());
    }
    static std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string>& b) {
        a.insert(a.end(), b.begin(), b.end());
        return a;
    }
    static std::string generated(const std::vector<std::string>& arguments,
                                 const std::string& input_file = "/dev/null") {
        const Program::Result result = run("generate", joined(arguments, {"--threads", "1", "--device", "cpu"}),
                                           [&] { dup2(open(input_file.c_str(), O_RDONLY), 0); });
        EXPECT_EQ(result.exit, 0) << result.err;
        return result.out;
    }
};

TEST_F(GenerationPrograms, GenerateTakesEveryKindOfModel) {
    const std::vector<std::string> prompt = {"-p", "number 12", "--max-new-tokens", "12"};
    const std::string of_base = generated(joined({path("base")}, prompt));
    EXPECT_TRUE(of_base.starts_with("> number 12\n")) << of_base;
    EXPECT_NE(of_base.find("count"), std::string::npos) << of_base;  // it has learned that much
    EXPECT_EQ(generated(joined({checkpoint("base")}, prompt)), of_base);

    spill(path("lora.yaml"),
          fmt::format("model_name_or_path: {}\nfinetuning_type: lora\nlora_rank: 4\nlearning_rate: 0.1\n{}",
                      path("base"), common("lora")));
    std::string rows = slurp(path("chat.jsonl"));
    for (size_t at; (at = rows.find("a count of")) != rows.npos;) rows.replace(at, 10, "no");
    spill(path("chat.jsonl"), rows);
    train("lora.yaml");
    const std::string of_adapters = generated(joined({path("lora")}, prompt));
    EXPECT_NE(of_adapters, of_base);
    EXPECT_EQ(generated(joined({path("lora"), "--base", path("base")}, prompt)), of_adapters);
    EXPECT_EQ(generated(joined({checkpoint("lora")}, prompt)), of_adapters);

    spill(path("freeze.yaml"), fmt::format("model_name_or_path: {}\nfinetuning_type: freeze\nlearning_rate: 0.02\n"
                                           "freeze_trainable_layers: 1\n{}",
                                           path("base"), common("frozen")));
    train("freeze.yaml");
    const std::string of_frozen = generated(joined({path("frozen")}, prompt));
    EXPECT_NE(of_frozen, of_base);
    EXPECT_EQ(generated(joined({checkpoint("frozen")}, prompt)), of_frozen);
}

TEST_F(GenerationPrograms, AnswersComeInOrderWhateverTheBatch) {
    std::string prompts;
    for (int i = 0; i < 9; ++i) prompts += fmt::format("number {}\n{}", i, i % 2 ? "\n" : "");
    spill(path("prompts.txt"), prompts);
    const std::vector<std::string> sampled = {
        path("base"), "--temperature",        "1.5", "--top-k",          "20", "--top-p", "0.95", "--min-p",
        "0.01",       "--repetition-penalty", "1.1", "--max-new-tokens", "20"};
    const std::string one =
        generated(joined(sampled, {"--prompts-file", path("prompts.txt"), "--batch", "1", "--seed", "3"}));
    EXPECT_EQ(std::ranges::count(one, '>'), 9) << one;
    EXPECT_EQ(generated(joined(sampled, {"--prompts-file", path("prompts.txt"), "--batch", "4", "--seed", "3"})), one);
    EXPECT_EQ(generated(joined(sampled, {"--seed", "3"}), path("prompts.txt")), one);
    EXPECT_NE(generated(joined(sampled, {"--seed", "4"}), path("prompts.txt")), one);
}

/// The answers of a row of --json.
std::vector<std::string> completions(const Json& row) {
    return row.at("completions").get<std::vector<std::string>>();
}

TEST_F(GenerationPrograms, SamplesAsRowsOfJson) {
    spill(path("prompts.txt"), "number 3\nnumber 4\n");
    const std::vector<std::string> sampled = {
        path("base"), "--prompts-file", path("prompts.txt"), "--samples", "3", "--temperature", "4", "--json",
        "--system",   "count",          "--max-new-tokens",  "6"};
    const std::string text = generated(joined(sampled, {"--batch", "1"}));
    EXPECT_EQ(generated(joined(sampled, {"--batch", "4"})), text);
    std::istringstream lines(text);
    std::vector<Json> rows;
    for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
    ASSERT_EQ(rows.size(), 2u) << text;
    std::set<std::string> different;
    for (size_t i = 0; i < 2; ++i) {
        const Json prompt = {{{"role", "system"}, {"content", "count"}},
                             {{"role", "user"}, {"content", fmt::format("number {}", i + 3)}}};
        EXPECT_EQ(rows[i].at("prompt"), prompt);
        EXPECT_EQ(completions(rows[i]).size(), 3u);
        EXPECT_EQ(rows[i].at("finish_reason").size(), 3u);
        for (const std::string& answer : completions(rows[i])) different.insert(answer);
    }
    EXPECT_GT(different.size(), 3u) << text;  // neither samples nor prompts share their random numbers

    // One greedy answer is what is printed without --json. An answer ends by itself, at a text, or for want of tokens.
    const auto only = [&](const std::vector<std::string>& more) {
        return Json::parse(generated(joined({path("base"), "-p", "number 7", "--json"}, more)));
    };
    const Json ended = only({"--max-new-tokens", "50"}), cut = only({"--max-new-tokens", "2"}),
               stopped = only({"--stop", "ount"});
    EXPECT_EQ(generated({path("base"), "-p", "number 7", "--max-new-tokens", "50"}),
              "> number 7\n" + completions(ended)[0] + "\n\n");
    EXPECT_EQ(ended.at("finish_reason"), Json::array({"stop"}));
    EXPECT_EQ(cut.at("finish_reason"), Json::array({"length"}));
    EXPECT_EQ(stopped.at("finish_reason"), Json::array({"stop"}));
    EXPECT_FALSE(completions(stopped)[0].ends_with("ount"));
    EXPECT_EQ(only({"--raw"}).at("prompt"), "number 7");
    EXPECT_EQ(only({"--chat-template-kwargs", R"({"a": 1})"}).at("chat_template_kwargs"), (Json{{"a", 1}}));
}

TEST_F(GenerationPrograms, StopStringsEndAnAnswer) {
    const std::string whole = generated({path("base"), "-p", "number 7", "--max-new-tokens", "12"});
    const size_t at = whole.find("ount");
    ASSERT_NE(at, std::string::npos) << whole;
    EXPECT_EQ(generated({path("base"), "-p", "number 7", "--max-new-tokens", "12", "--stop", "ount"}),
              whole.substr(0, at) + "\n\n");
}

TEST_F(GenerationPrograms, ErrorsSayWhatIsWrong) {
    const auto expect = [&](const std::vector<std::string>& arguments, Exit exit, const std::string& part) {
        const Program::Result result = run("generate", arguments);
        EXPECT_EQ(result.exit, static_cast<int>(exit)) << result.err;
        EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
        EXPECT_EQ(result.out, "");
    };
    expect({path("base"), "--base", path("base"), "-p", "x"}, Exit::config, "--base is for a folder of adapters");
    expect({path("base"), "-p", "x", "--max-length", "3"}, Exit::data, "prompt and answer together may have 3");
    expect({path("base"), "--prompts-file", path("none")}, Exit::data, "none: cannot open");
    expect({path("base"), "-p", "x", "--samples", "0"}, Exit::config, "--samples");
    expect({path("base"), "-p", "x", "--json", "--logits-out", path("x")}, Exit::config, "--json");
    expect({path("base"), "-p", "x", "--min-p", "2"}, Exit::config, "--min-p");
    expect({path("base"), "-p", "x", "--chat-template-kwargs", "[]"}, Exit::config, "expected an object");
    std::string state = slurp(checkpoint("base") + "/model_config.json");
    state[10] = '!';
    spill(checkpoint("base") + "/model_config.json", state);
    expect({checkpoint("base"), "-p", "x"}, Exit::data, "the checkpoint is damaged");
}

/// A chat whose input this process writes.
class Conversation {
  public:
    explicit Conversation(const std::vector<std::string>& arguments) {
        EXPECT_EQ(pipe2(ends_, O_CLOEXEC), 0);
        program_ = std::make_unique<Program>("chat", arguments, [this] { dup2(ends_[0], 0); });
        close(ends_[0]);
    }
    void say(const std::string& line) const {
        EXPECT_EQ(write(ends_[1], (line + "\n").data(), line.size() + 1), static_cast<ssize_t>(line.size()) + 1);
    }
    /// The next line of stderr.
    std::string report() const {
        std::string line;
        program_->read_line(line);
        return line;
    }
    void interrupt() const { program_->send(SIGINT); }
    Program::Result end() {
        close(ends_[1]);
        return program_->wait();
    }

  private:
    int ends_[2] = {};
    std::unique_ptr<Program> program_;
};

/// "[12 tokens, ...; 5 of 17 tokens read in ...]" gives 5 and 17.
std::pair<int, int> tokens_read(const std::string& report) {
    int read = -1, all = -1;
    std::sscanf(report.c_str() + report.find(';') + 1, " %d of %d", &read, &all);
    return {read, all};
}

TEST_F(GenerationPrograms, ChatReadsOnlyWhatIsNew) {
    Conversation chat({path("base"), "--threads", "1", "--device", "cpu", "--max-new-tokens", "12"});
    chat.say("number 3");
    const auto [first, first_all] = tokens_read(chat.report());
    EXPECT_EQ(first, first_all);
    chat.say("number 4");
    const auto [second, second_all] = tokens_read(chat.report());
    EXPECT_GT(second_all, first_all);
    EXPECT_LT(second, second_all - first_all / 2);
    chat.say("/reset");
    chat.say("number 3");
    EXPECT_EQ(tokens_read(chat.report()).second, first_all);
    chat.say("/system be brief");
    chat.say("number 3");
    EXPECT_GT(tokens_read(chat.report()).second, first_all);
    chat.say("/nothing");
    EXPECT_EQ(chat.report(), "/nothing: no such command; /help lists them");
    chat.say("/help");
    const Program::Result result = chat.end();
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_NE(result.out.find("/system TEXT"), std::string::npos);
    // The same question without a system message has the same answer.
    const std::string answer = result.out.substr(0, result.out.find('\n') + 1);
    EXPECT_EQ(generated({path("base"), "-p", "number 3", "--max-new-tokens", "12"}), "> number 3\n" + answer + "\n");
    size_t times = 0;
    for (size_t at = 0; (at = result.out.find(answer, at)) != std::string::npos; at += answer.size()) ++times;
    EXPECT_GE(times, 2u) << result.out;
}

TEST_F(GenerationPrograms, CtrlCStopsAnAnswerAndNotTheProgram) {
    Conversation chat({path("base"), "--threads", "1", "--device", "cpu", "--max-new-tokens", "90000", "--max-length",
                       "95000", "--ignore-eos"});
    chat.say("number 3");
    usleep(700'000);
    chat.interrupt();
    const std::string report = chat.report();
    EXPECT_NE(report.find("stopped"), std::string::npos) << report;
    usleep(200'000);
    chat.interrupt();  // while it waits for input
    usleep(200'000);
    chat.say("/help");
    const Program::Result result = chat.end();
    EXPECT_EQ(result.exit, 0) << result.err;
    EXPECT_NE(result.out.find("/system TEXT"), std::string::npos);
}

TEST_F(GenerationPrograms, ChatSaysWhenTheConversationIsFull) {
    Conversation chat(
        {path("base"), "--threads", "1", "--device", "cpu", "--max-length", "60", "--max-new-tokens", "12"});
    std::string report;
    for (int i = 0; i < 20 && !report.starts_with("the conversation has"); ++i) {
        chat.say("number 3");
        report = chat.report();
    }
    EXPECT_NE(report.find("of at most 60: /reset forgets it"), std::string::npos) << report;
    chat.say("/reset");
    chat.say("number 3");
    EXPECT_TRUE(chat.report().starts_with("[")) << "after /reset";
    EXPECT_EQ(chat.end().exit, 0);
}

}  // namespace
}  // namespace colonnade
