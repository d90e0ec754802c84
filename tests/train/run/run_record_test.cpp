// What a run folder remembers: run.json and train.log of runs that end in every way, and the model card.

#include "train/run/run_record.h"

#include "tests/support/tiny_run.h"
#include "train/run/loaded_model.h"
#include "train/run/model_card.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class Records : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        write_config("max_steps: 6\nsave_steps: 2\nlogging_steps: 1\nval_size: 9\neval_steps: 3\n");
    }
    Json starts(const std::string& name) const { return read_json_file(path(name) + "/run.json").at("starts"); }
    std::string log(const std::string& name) const { return slurp(path(name) + "/train.log"); }
};

TEST_F(Records, OfARunThatEnds) {
    const Program::Result run = Program("train", {config(), output("run")}).wait();
    const Json all = starts("run");
    ASSERT_EQ(all.size(), 1u);
    const Json& start = all[0];
    EXPECT_EQ(start.at("state"), "finished");
    EXPECT_EQ(start.at("reason"), "");
    EXPECT_EQ(start.at("step"), 6);
    EXPECT_EQ(start.at("total_steps"), 6);
    EXPECT_EQ(start.at("resumed_step"), 0);
    EXPECT_EQ(start.at("command"), Json({program_path("train"), config(), output("run")}));
    EXPECT_EQ(start.at("ranks"), 1);
    EXPECT_EQ(start.at("machine").at("device"), "CPU");
    EXPECT_TRUE(start.at("program").get<std::string>().starts_with("colonnade " COLONNADE_VERSION)) << start;
    EXPECT_LE(start.at("started").get<std::string>(), start.at("ended").get<std::string>());
    EXPECT_TRUE(state_of_run(path("run")).starts_with("finished after step 6, 20")) << state_of_run(path("run"));
    // All that was printed, but for the progress and the summary, which begins with the curves.
    std::istringstream out(run.out), err(run.err);
    int lines = 0;
    for (std::istream* stream : {static_cast<std::istream*>(&out), static_cast<std::istream*>(&err)})
        for (std::string line; std::getline(*stream, line);) {
            if (line.starts_with("    ") && line.find("loss") != line.npos) break;
            if (line.starts_with("train ") || line.starts_with("tokenising ") || line.empty()) continue;
            EXPECT_NE(log("run").find(line + "\n"), std::string::npos) << line;
            ++lines;
        }
    EXPECT_GT(lines, 15);
}

TEST_F(Records, OfEveryStart) {
    Program first("train", {config(), output("run"), "max_steps=4000"});
    ASSERT_TRUE(first.read_until("step 5/"));
    EXPECT_TRUE(state_of_run(path("run")).starts_with(fmt::format("running as process {} since ", first.pid())));
    const Json running = starts("run")[0];
    EXPECT_EQ(running.at("state"), "running");
    EXPECT_EQ(running.at("ended"), nullptr);
    first.send(SIGTERM);
    first.wait();
    const int64_t step = last_step(path("run"));
    EXPECT_TRUE(state_of_run(path("run")).starts_with(fmt::format("stopped by SIGTERM after step {}, ", step)));

    Program second("train", {config(), output("run"), "max_steps=4000", "resume_from_checkpoint=auto"});
    ASSERT_TRUE(second.read_until("step "));
    const std::string killed = fmt::format("killed: process {}, which started it on 20", second.pid());
    second.send(SIGKILL);
    second.wait();
    EXPECT_TRUE(state_of_run(path("run")).starts_with(killed)) << state_of_run(path("run"));
    // The same pid in use by another process.
    Json record = read_json_file(path("run/run.json"));
    record["starts"][1]["pid"] = getpid();
    spill(path("run/run.json"), record.dump());
    EXPECT_TRUE(state_of_run(path("run")).starts_with("killed: process ")) << state_of_run(path("run"));

    const int64_t saved = last_step(path("run"));
    const std::string third = train(config(), {output("run"), fmt::format("max_steps={}", saved + 2),
                                               "resume_from_checkpoint=auto", "learning_rate=1e-3"});
    EXPECT_NE(third.find("the last run in " + path("run") + ": killed: process "), std::string::npos) << third;
    const Json all = starts("run");
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(all[0].at("state"), "stopped");
    EXPECT_EQ(all[1].at("state"), "running");
    EXPECT_EQ(all[2].at("state"), "finished");
    EXPECT_EQ(all[2].at("resumed_step"), saved);
    EXPECT_EQ(all[2].at("changes").dump(), fmt::format("[\"max_steps: 4000, now {}\",\"learning_rate: 2e-05, now "
                                                       "0.001\"]",
                                                       saved + 2));
    size_t heads = 0;
    std::istringstream lines(log("run"));
    for (std::string line; std::getline(lines, line);) heads += line.starts_with("=== 20");
    EXPECT_EQ(heads, 3u) << log("run");
}

TEST_F(Records, OfARunThatFails) {
    train(config(), {output("run")});
    fs::remove(path("run/config.json"));
    spill(path("train.jsonl"), chain_rows(160, 2));
    std::string message;
    try {
        train(config(), {output("run"), "resume_from_checkpoint=auto"});
    } catch (const Error& e) {
        message = e.what();
    }
    EXPECT_NE(message.find("other data"), std::string::npos);
    const Json last = starts("run").back();
    EXPECT_EQ(last.at("state"), "failed");
    EXPECT_EQ(last.at("reason"), "with: " + message);
    EXPECT_NE(log("run").find("error: " + message + "\n"), std::string::npos);
    // A run that is refused before it takes the folder leaves the record as it is.
    const std::string before = slurp(path("run/run.json"));
    expect_error(Exit::config, "(its last run: failed with: ", [&] { train(config(), {output("run")}); });
    EXPECT_EQ(slurp(path("run/run.json")), before);
    train(config(), {output("run"), "overwrite_output_dir=true"});
    EXPECT_EQ(starts("run").size(), 1u);
    EXPECT_TRUE(log("run").starts_with("=== ")) << log("run");
    EXPECT_EQ(log("run").find("error: "), std::string::npos);
}

TEST_F(Records, OfOthersAreNotRead) {
    for (const char* text : {"", "[]", "{\"format\": 3}", "{\"format\": \"colonnade-run\", \"starts\": {}}",
                             "{\"format\": \"colonnade-run\", \"starts\": [3]}",
                             "{\"format\": \"colonnade-run\", \"starts\": [{\"state\": 3, \"pid\": \"x\"}]}"}) {
        spill(path("run.json"), text);
        EXPECT_EQ(state_of_run(folder_).find("finished"), std::string::npos) << text;
        RunRecord record(folder_, false);
        record.end({"finished", "", 4});
        EXPECT_TRUE(state_of_run(folder_).starts_with("finished after step 4, ")) << text;
    }
    EXPECT_EQ(state_of_run(path("nowhere")), "");
}

TEST_F(Records, GenerationTakesTheCheckpointOfAStoppedRun) {
    Program program("train", {config(), output("run"), "max_steps=4000"});
    ASSERT_TRUE(program.read_until("step 5/"));
    program.send(SIGTERM);
    program.wait();
    const std::string newest = checkpoint_folder(path("run"), last_step(path("run")));
    const LoadedModel model({.model = path("run"), .text = false}), same({.model = newest, .text = false});
    ASSERT_EQ(model.notices().size(), 1u);
    EXPECT_TRUE(
        model.notices()[0].starts_with(path("run") + " has no model yet (its run: stopped by SIGTERM after step "))
        << model.notices()[0];
    EXPECT_TRUE(model.notices()[0].ends_with("): the model is that of " + newest)) << model.notices()[0];
    const Tensor a = model.weights().embedding, b = same.weights().embedding;
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0);
    const Program::Result exported = Program("export", {path("run"), path("exported")}).wait();
    EXPECT_EQ(exported.exit, 0) << exported.err;
    EXPECT_TRUE(fs::exists(path("exported/config.json")));
}

TEST_F(Records, TheModelCardIsReplacedOnlyIfItIsOurs) {
    train(config(), {output("run")});
    const std::string card = slurp(path("run/README.md"));
    for (const std::string part : {"library_name: transformers\n", "- sft\n", "| steps | 6 |", "| eval_loss | ",
                                   "| data | `train.jsonl` |", "# run\n", "start | random weights"})
        EXPECT_NE(card.find(part), std::string::npos) << card << "\nlacks " << part;
    EXPECT_EQ(card.find(folder_), std::string::npos) << "a path of this machine";
    train(config(), {output("run"), "overwrite_output_dir=true", "max_steps=4"});
    EXPECT_NE(slurp(path("run/README.md")).find("| steps | 4 |"), std::string::npos);
    spill(path("run/README.md"), "# My own\n");
    const std::string printed = train(config(), {output("run"), "overwrite_output_dir=true"});
    EXPECT_NE(printed.find("README.md is not a card of Colonnade and stays as it is"), std::string::npos) << printed;
    EXPECT_EQ(slurp(path("run/README.md")), "# My own\n");
}

TEST_F(Records, TheModelCardNamesBaseDataAndLicence) {
    fs::create_directories(path("base"));
    spill(path("base/README.md"),
          "---\nlanguage: [en]\nlicense: \"apache-2.0\"\nlicense_link: https://a.b/c\n"
          "license_name: evil: [\n---\nlicense: mit\n");
    EXPECT_EQ(license_lines(path("base")), "license: apache-2.0\nlicense_link: https://a.b/c\n");
    Config c = parse_config(fmt::format("model_name_or_path: {}\ndatasets: [{{path: {}}}, {{path: /secret/b.jsonl}}]\n"
                                        "output_dir: {}\nfinetuning_type: lora\n",
                                        path("base"), path("data"), path("out")),
                            "c.yaml")
                   .config;
    c.hub_names = {{path("base"), "org/base@0123"}, {path("data"), "org/data@4567/train"}};
    const std::string card = model_card(c, {.step = 20, .last_step = 30}, CardOf::adapters);
    EXPECT_NE(card.find("\nbase_model: org/base\nbase_model_relation: adapter\ndatasets:\n- org/data\n"
                        "license: apache-2.0\nlicense_link: https://a.b/c\nlibrary_name: peft\n"
                        "pipeline_tag: text-generation\ntags:\n- colonnade\n- sft\n- lora\n---\n"),
              std::string::npos)
        << card;
    EXPECT_NE(card.find("| steps | 20, the best of 30 |"), std::string::npos) << card;
    EXPECT_NE(card.find("`org/data`, `b.jsonl`"), std::string::npos) << card;
    EXPECT_EQ(card.find("secret"), std::string::npos);
    for (const char* readme : {"", "no front matter\nlicense: mit\n", "---\nlicense: a b\nlicense_name: \x01\n"}) {
        spill(path("base/README.md"), readme);
        EXPECT_EQ(license_lines(path("base")), "") << readme;
    }
    fs::remove(path("base/README.md"));
    fs::create_directory_symlink("/etc", path("base/README.md"));
    EXPECT_EQ(license_lines(path("base")), "");
}

}  // namespace
}  // namespace colonnade
