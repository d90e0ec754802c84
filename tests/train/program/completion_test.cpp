// Completion: what is offered, and that bash, zsh and fish offer it when a user presses Tab.

#include "train/program/completion.h"

#include <thread>

#include "tests/support/file_test.h"
#include "tests/support/program.h"
#include "tests/support/terminal.h"
#include "train/program/commands.h"

namespace colonnade {
namespace {

using Texts = std::vector<std::string>;

class Completion : public FileTest {
  protected:
    void SetUp() override {
        FileTest::SetUp();
        before_ = std::filesystem::current_path();
        std::filesystem::create_directories(path("hf/hub/models--org--tiny"));
        std::filesystem::create_directories(path("hf/hub/datasets--org--chats"));
        std::filesystem::create_directories(path("work/models/llama"));
        std::filesystem::current_path(path("work"));
        for (const char* name : {"my.yaml", "small.gguf", "chats.jsonl", "pairs.parquet", "notes.txt", ".hidden.yaml"})
            spill(name, "");
        for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) unsetenv(name);
        setenv("HF_HOME", path("hf").c_str(), 1);
    }
    void TearDown() override {
        std::filesystem::current_path(before_);
        unsetenv("HF_HOME");
        FileTest::TearDown();
    }
    static Texts offered(const Texts& words) {
        Texts texts;
        for (const Candidate& c : complete(words)) texts.push_back(c.text);
        return texts;
    }
    static bool offers(const Texts& words, const std::string& text) {
        const Texts all = offered(words);
        return std::ranges::find(all, text) != all.end();
    }

    std::filesystem::path before_;
};

TEST_F(Completion, OffersCommands) {
    EXPECT_EQ(offered({"tr"}), Texts{"train"});
    EXPECT_EQ(offered({"bench", ""}), (Texts{"attention", "generate", "layers", "prepare", "save", "step"}));
    EXPECT_EQ(offered({"help", "che"}), Texts{"check-packing"});
    EXPECT_EQ(offered({"completion", ""}), (Texts{"bash", "fish", "zsh"}));
    EXPECT_EQ(offered({"--v"}), Texts{"--version"});
    for (const Command& command : commands()) {  // each of them, by its first word
        const std::string name = command.name;
        EXPECT_EQ(offers({""}, name.substr(0, name.find(' '))), !command.hidden) << name;
    }
    EXPECT_TRUE(offered({"nothing", ""}).empty());
}

TEST_F(Completion, OffersOptionsAndTheirValues) {
    EXPECT_EQ(offered({"chat", "--top"}), (Texts{"--top-k", "--top-p"}));
    EXPECT_EQ(offered({"chat", "--device", ""}), (Texts{"auto", "cpu", "cuda"}));
    EXPECT_EQ(offered({"export", "--dtype", "b"}), Texts{"bfloat16"});
    EXPECT_EQ(offered({"generate", "--prompts-file", "n"}), Texts{"notes.txt"});
    EXPECT_EQ(offered({"train", "my.yaml", "--pla"}), Texts{"--plan"});
    EXPECT_TRUE(offered({"plan", "my.yaml", "--pla"}).empty());
}

TEST_F(Completion, OffersModelsDataAndConfigs) {
    EXPECT_EQ(offered({"train", ""}), (Texts{"models/", "my.yaml", "org/tiny", "small.gguf"}));
    EXPECT_EQ(offered({"train", ".h"}), Texts{".hidden.yaml"});
    EXPECT_EQ(offered({"train", "small.gguf", ""}), (Texts{"chats.jsonl", "models/", "org/chats", "pairs.parquet"}));
    EXPECT_EQ(offered({"chat", "models/"}), Texts{"models/llama/"});
    EXPECT_EQ(offered({"init", "org/tiny", "p"}), Texts{"pairs.parquet"});
    EXPECT_EQ(offered({"init", "org/tiny", "chats.jsonl", "p"}), Texts{"pairs.parquet"});
    EXPECT_EQ(offered({"tokenizer", "train", "--text", "ch"}), Texts{"chats.jsonl"});
    EXPECT_EQ(offered({"bench", "step", "m"}), (Texts{"models/", "my.yaml"}));
    EXPECT_EQ(offered({"bench", "step", "my.yaml", "max_st"}), Texts{"max_steps="});
    setenv("HOME", path("work").c_str(), 1);
    EXPECT_EQ(offered({"chat", "~/sm"}), Texts{"~/small.gguf"});
}

TEST_F(Completion, OffersKeysOfTheConfigAndTheirValues) {
    EXPECT_EQ(offered({"train", "my.yaml", "stag"}), Texts{"stage="});
    EXPECT_EQ(offered({"train", "my.yaml", "stage="}),
              (Texts{"stage=distill", "stage=dpo", "stage=grpo", "stage=kto", "stage=pt", "stage=rm", "stage=sft"}));
    EXPECT_EQ(offered({"train", "my.yaml", "--stage", "s"}), Texts{"sft"});
    EXPECT_EQ(offered({"train", "my.yaml", "--stage=s"}), Texts{"--stage=sft"});
    EXPECT_EQ(offered({"train", "my.yaml", "--max-st"}), Texts{"--max-steps"});
    EXPECT_EQ(offered({"train", "my.yaml", "--max_st"}), Texts{"--max_steps"});
    EXPECT_EQ(offered({"train", "my.yaml", "packing="}), (Texts{"packing=false", "packing=true"}));
    EXPECT_EQ(offered({"train", "my.yaml", "report_to=csv,w"}), Texts{"report_to=csv,wandb"});
    EXPECT_TRUE(offers({"train", "my.yaml", "model_name_or_path="}, "model_name_or_path=org/tiny"));
    EXPECT_EQ(offered({"train", "my.yaml", "datasets[0].path=ch"}), Texts{"datasets[0].path=chats.jsonl"});
    EXPECT_EQ(offered({"train", "my.yaml", "model.hid"}), Texts{"model.hidden_size="});
    EXPECT_EQ(offered({"train", "stage=sft", "my"}), Texts{"my.yaml"}) << "a key before the config";
    EXPECT_EQ(offered({"train", "--stage", "sft", "my"}), Texts{"my.yaml"});
    EXPECT_TRUE(offered({"chat", "my.yaml", "stag"}).empty()) << "chat takes no keys";
}

/// Types keys at a shell whose `colonnade` completes, and otherwise prints its arguments between < and >.
class Shells : public Completion {
  protected:
    void SetUp() override {
        Completion::SetUp();
        std::filesystem::create_directory(path("bin"));
        spill(path("bin/colonnade"), fmt::format("#!/bin/sh\nif [ \"$1\" = complete ]; then exec {} \"$@\"; fi\n"
                                                 "printf 'got'; printf ' <%s>' \"$@\"; echo .\n",
                                                 program_path("colonnade")));
        std::filesystem::permissions(path("bin/colonnade"), std::filesystem::perms::owner_all);
        for (const char* shell : {"bash", "zsh", "fish"}) spill(path(shell), completion_script(shell));
    }
    /// The path of a shell; empty if it is not installed.
    static std::string installed(const std::string& shell) {
        for (const char* folder : {"/usr/bin/", "/bin/", "/usr/local/bin/"})
            if (access((folder + shell).c_str(), X_OK) == 0) return folder + shell;
        return "";
    }
    /// What the user typed on the left (Tab as \t), what the program gets on the right.
    void expect_completions(Terminal& shell) {
        shell.type("echo rea''dy\n");
        ASSERT_TRUE(shell.wait_for("ready\r\n")) << shell.seen();
        const std::pair<const char*, const char*> cases[] = {
            {"colonnade pla\t my.y\t --max-st\t 5\n", "got <plan> <my.yaml> <--max-steps> <5>."},
            {"colonnade bench gen\t\n", "got <bench> <generate>."},
            {"colonnade train small.gguf pai\tstage=dp\t\n", "got <train> <small.gguf> <pairs.parquet> <stage=dpo>."},
            {"colonnade chat mod\tll\t\n", "got <chat> <models/llama/>."},
            {"colonnade train org/t\t datasets[0].path=cha\t\n",
             "got <train> <org/tiny> <datasets[0].path=chats.jsonl>."},
        };
        for (const auto& [keys, got] : cases) {
            for (const char* key = keys; *key; ++key) {
                shell.type(std::string(1, *key));
                if (*key == '\t') std::this_thread::sleep_for(std::chrono::milliseconds(400));
            }
            EXPECT_TRUE(shell.wait_for(got, 10)) << keys << " wants " << got << "\n" << shell.seen();
        }
    }
    void environment() const {
        setenv("PATH", (path("bin") + ":" + std::getenv("PATH")).c_str(), 1);
        setenv("HOME", folder_.c_str(), 1);
        setenv("TERM", "dumb", 1);
        for (const char* name : {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "BASH_ENV", "ENV", "ZDOTDIR"}) unsetenv(name);
    }
};

TEST_F(Shells, BashCompletes) {
    const std::string bash = installed("bash");
    if (bash.empty()) GTEST_SKIP() << "bash is not installed";
    Terminal shell(bash, {"--norc", "--noprofile", "-i"}, [&] { environment(); });
    shell.type("source ../bash\n");
    expect_completions(shell);
}

TEST_F(Shells, ZshCompletes) {
    const std::string zsh = installed("zsh");
    if (zsh.empty()) GTEST_SKIP() << "zsh is not installed";
    Terminal shell(zsh, {"-f", "-i"}, [&] { environment(); });
    shell.type(
        "unsetopt zle_bracketed_paste nomatch; autoload -Uz compinit; compinit -u -d ../zcompdump; source ../zsh\n");
    expect_completions(shell);
}

TEST_F(Shells, FishCompletes) {
    const std::string fish = installed("fish");
    if (fish.empty()) GTEST_SKIP() << "fish is not installed";
    // fish lists the completions of a line without a terminal.
    const auto completions = [&](const std::string& line) {
        const Program::Result result = run(
            fish, {"--no-config", "-c", "source ../fish; complete -C " + ("'" + line + "'")}, [&] { environment(); });
        EXPECT_EQ(result.exit, 0) << result.err;
        return result.out;
    };
    EXPECT_TRUE(completions("colonnade pla").starts_with("plan\t"));
    EXPECT_EQ(completions("colonnade train my.yaml stage=dp"), "stage=dpo\n");
    EXPECT_EQ(completions("colonnade train small.gguf pai"), "pairs.parquet\n");
    EXPECT_EQ(completions("colonnade bench st").substr(0, 5), "step\t");
    EXPECT_EQ(completions("colonnade chat mod"), "models/\n");
}

}  // namespace
}  // namespace colonnade
