// bench_step measures every stage as `train` runs it, for a config and for a shape, on one rank and on two.

#include "tests/support/mpirun.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

class BenchStep : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        spill(path("pairs.jsonl"), pair_rows(60));
    }
    /// The program's report of one step without warm-up.
    Json measure(std::vector<std::string> arguments, int ranks = 1) const {
        for (const char* more : {"--warmup", "0", "--steps", "1", "--profile", "1", "--json"})
            arguments.emplace_back(more);
        arguments.push_back(path("report.json"));
        fs::remove(path("report.json"));
        const Program::Result result =
            ranks == 1 ? run("bench_step", arguments)
                       : Program(mpirun(), on_ranks(ranks, "bench_step", arguments), allow_ranks).wait();
        EXPECT_EQ(result.exit, 0) << result.err;
        if (result.exit != 0) return {};
        Json report = read_json_file(path("report.json"));
        EXPECT_EQ(result.out.find("pairs/s") != std::string::npos, report.contains("pairs_per_second")) << result.out;
        return report;
    }
    std::vector<std::string> of_pairs(const std::string& name, const std::string& stage) const {
        return {output(name),         "stage=" + stage,  "datasets[0].path=" + path("pairs.jsonl"),
                "packing_length=96",  "max_steps=2",     "num_train_epochs=0",
                "learning_rate=0.01", "logging_steps=1", "per_device_train_batch_size=2"};
    }
    /// Loss of the first step that `train` logs.
    double trained(const std::string& config, const std::vector<std::string>& arguments) const {
        train(config, arguments);
        return value_at(read_log(path("run")), "loss", 1);
    }
    static std::vector<std::string> shape(std::vector<std::string> more) {
        more.insert(more.begin(), {"--shape", "16,32,2,4,2,4,31", "--device", "cpu"});
        return more;
    }
};

std::vector<std::string> with(const std::string& first, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), first);
    return arguments;
}

TEST_F(BenchStep, RunsTheStageOfAConfig) {
    const Json texts = measure({config(), output("run")});
    EXPECT_EQ(texts.at("stage"), "sft");
    EXPECT_NEAR(texts.at("first_loss"), trained(config(), {output("run"), "max_steps=1"}), 1e-6);
    for (const char* key : {"reference", "pairs_per_second", "tokens_per_pair"}) EXPECT_FALSE(texts.contains(key));
    for (const std::string stage : {"dpo", "rm"}) {
        fs::remove_all(path("run"));
        const Json report = measure(with(config(), of_pairs("run", stage)));
        EXPECT_EQ(report.at("stage"), stage);
        EXPECT_EQ(report.value("reference", ""), stage == "dpo" ? "precomputed" : "");
        EXPECT_NEAR(report.at("first_loss"), trained(config(), of_pairs("run", stage)), 1e-6);
        if (stage == "dpo") {
            EXPECT_NEAR(report.at("first_loss"), std::log(2), 1e-6);
        }
        EXPECT_EQ(report.contains("target_share"), stage == "dpo");
        EXPECT_NEAR(report.at("pairs_per_second").get<double>() * report.at("tokens_per_pair").get<double>(),
                    report.at("tokens_per_second"), 1e-6 * report.at("tokens_per_second").get<double>());
    }
}

TEST_F(BenchStep, TreesShareWhatTheyBeginWith) {
    const auto trees = [](const char* share) {
        return shape({"--length", "256", "--trees", "100,8,5,6", "--share-prefixes", share});
    };
    const Json shared = measure(trees("auto")), apart = measure(trees("false"));
    EXPECT_GT(shared.at("represented_per_token").get<double>(), 2.5);
    EXPECT_NEAR(shared.at("represented_tokens_per_second").get<double>(),
                shared.at("represented_per_token").get<double>() * shared.at("tokens_per_second_overall").get<double>(),
                1e-6 * shared.at("represented_tokens_per_second").get<double>());
    EXPECT_FALSE(apart.contains("represented_per_token"));
    EXPECT_NEAR(shared.at("first_loss"), std::log(31), 0.2);
}

TEST_F(BenchStep, RunsAdaptersAndTheirReference) {
    train(config(), {output("base"), "max_steps=2", "learning_rate=0.01", "save_strategy=no"});
    spill(path("lora.yaml"), fmt::format("model_name_or_path: {}\nfinetuning_type: lora\nlora_rank: 4\n"
                                         "datasets: [{{path: {}}}]\nmax_length: 48\nprepared_path: {}\nthreads: 1\n"
                                         "report_to: [jsonl]\n",
                                         path("base"), path("pairs.jsonl"), path("prepared")));
    double flops = 0;
    for (const std::string reference : {"precomputed", "base"}) {
        std::vector<std::string> arguments = of_pairs("run", "dpo");
        if (reference == "base") arguments.push_back("precompute_ref_log_probs=false");
        const Json report = measure(with(path("lora.yaml"), arguments));
        EXPECT_EQ(report.at("reference"), reference);
        EXPECT_EQ(report.at("lora").at("rank"), 4);
        EXPECT_NEAR(report.at("first_loss"), std::log(2), 1e-6);
        // With LoRA a step is 4 parts of 6, plus the adapters; a forward pass is 2 parts.
        if (reference == "base") {
            EXPECT_GT(report.at("step_flops"), 1.3 * flops);
        }
        flops = report.at("step_flops");
    }
    const Json report = measure(with(path("lora.yaml"), of_pairs("run", "rm")));
    EXPECT_NEAR(report.at("first_loss"), trained(path("lora.yaml"), of_pairs("run", "rm")), 1e-6);
}

TEST_F(BenchStep, ComparesSharedPromptsWithRepeatedOnes) {
    for (const std::string stage : {"dpo", "rm"})
        for (const bool lora : {false, true}) {
            std::vector<std::string> arguments =
                shape({"--stage", stage, "--pair-lengths", "16,6,10", "--length", "96"});
            if (lora) arguments.insert(arguments.end(), {"--lora-rank", "2"});
            const Json shared = measure(arguments);
            arguments.push_back("--repeat-prompts");
            const Json repeated = measure(arguments);
            EXPECT_EQ(shared.at("tokens_per_pair"), 32);
            EXPECT_EQ(repeated.at("tokens_per_pair"), 48);
            for (const Json& report : {shared, repeated}) {
                EXPECT_EQ(report.at("padding_share"), 0);
                EXPECT_EQ(report.value("reference", ""), stage == "dpo" ? "constant" : "");
                EXPECT_NEAR(report.at("first_loss"), std::log(2), 0.2);
                EXPECT_EQ(report.at("lora").is_object(), lora);
                EXPECT_GT(report.at("pairs_per_second"), 0);
            }
            if (stage == "dpo") {
                EXPECT_DOUBLE_EQ(shared.at("target_share"), 0.5);
                EXPECT_DOUBLE_EQ(repeated.at("target_share"), 1 / 3.0);
            }
        }
}

TEST_F(BenchStep, AddsUpTheRanks) {
    hide_scarce_gpus(2);
    if (mpirun().empty()) GTEST_SKIP() << "no mpirun, or a build without MPI";
    for (const std::vector<std::string>& workload :
         std::vector<std::vector<std::string>>{{"--length", "64"},
                                               {"--length", "64", "--mean-length", "20"},
                                               {"--length", "64", "--stage", "dpo", "--pair-lengths", "16,8,8"}}) {
        const Json report = measure(shape(workload), 2);
        EXPECT_EQ(report.at("ranks"), 2);
        EXPECT_GT(report.at("tokens_per_second_all"), report.at("tokens_per_second"));
        EXPECT_EQ(report.contains("pairs_per_second_all"), report.contains("pairs_per_second"));
        if (report.contains("pairs_per_second")) {
            EXPECT_NEAR(report.at("pairs_per_second_all").get<double>() * 32, report.at("tokens_per_second_all"),
                        1e-6 * report.at("tokens_per_second_all").get<double>());
        }
    }
    const Json report = measure(with(config(), of_pairs("run", "dpo")), 2);
    EXPECT_NEAR(report.at("first_loss"), std::log(2), 1e-6);
}

TEST_F(BenchStep, PlansInputsOfBlocksInHostMemory) {
    const auto plan = [&](const char* blocks, const char* device) {
        const Program::Result result =
            run("bench_step", {"--shape", "64,128,6,1,1,64,31", "--length", "1024", "--gradient-checkpointing", "block",
                               "--offload-activations", blocks, "--device", device, "--plan"});
        EXPECT_EQ(result.exit, 0) << result.err;
        return result.out;
    };
    const std::string host = "activations (host)";
    EXPECT_EQ(plan("false", "cuda").find(host), std::string::npos);
    EXPECT_EQ(plan("true", "cpu").find(host), std::string::npos);
    // 1024 tokens of 64 numbers of 2 bytes, of 6 blocks but the last two
    EXPECT_NE(plan("true", "cuda").find(fmt::format("  {:<24} {:>12}\n", host, "512.0 KiB")), std::string::npos);
    EXPECT_NE(plan("3", "cuda").find(fmt::format("  {:<24} {:>12}\n", host, "384.0 KiB")), std::string::npos);
    EXPECT_EQ(plan("100", "cuda"), plan("true", "cuda"));
    const Json report = measure(shape({"--offload-activations", "true"}));
    EXPECT_EQ(report.at("offload_activations"), 0) << "the CPU's memory is the host's";
    EXPECT_EQ(report.at("memory_host_bytes"), 0);
}

TEST_F(BenchStep, ReportsOptionsThatExcludeEachOther) {
    const auto expect = [&](const std::vector<std::string>& arguments, const std::string& message) {
        const Program::Result result = run("bench_step", arguments);
        EXPECT_EQ(result.exit, static_cast<int>(Exit::config)) << message;
        EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
    };
    expect(shape({"--repeat-prompts"}), "--repeat-prompts requires --stage");
    expect(shape({"--stage", "dpo"}), "--stage requires --pair-lengths");
    expect(shape({"--pair-lengths", "4,2,2"}), "--pair-lengths requires --stage");
    expect(shape({"--stage", "sft", "--pair-lengths", "4,2,2"}), "--stage: sft not in {dpo,rm}");
    expect(shape({"--stage", "rm", "--pair-lengths", "4,2,0"}), "--pair-lengths: Value 0 not in range");
    expect(shape({"--stage", "rm", "--pair-lengths", "4,2,2", "--mean-length", "4"}), "excludes --stage");
    expect(shape({"--stage", "rm", "--pair-lengths", "8,4,4", "--length", "23", "--repeat-prompts"}),
           "pairs of 24 tokens, repeated prompts included, do not fit into rows of 23");
    expect(shape({"--offload-activations", "some"}), "--offload-activations: Value some");
    expect({config(), output("run"), "--stage", "dpo", "--pair-lengths", "4,2,2"}, "excludes config");
}

TEST_F(BenchStep, PlansWhatFits) {
    const auto plan = [&](const std::vector<std::string>& more) {
        std::vector<std::string> all = {"--model", "qwen2.5-3b", "--length", "8192",   "--mean-length",
                                        "400",     "--device",   "cuda",     "--plan", "--accumulation",
                                        "8",       "--fit",      "auto"};
        if (std::ranges::find(more, "--host-memory") == more.end()) all.insert(all.end(), {"--host-memory", "64GiB"});
        all.insert(all.end(), more.begin(), more.end());
        return run("bench_step", all);
    };
    const std::string large = plan({"--gpu-memory", "80GiB"}).out, small = plan({"--gpu-memory", "24GiB"}).out;
    EXPECT_NE(large.find("fits as it is: "), std::string::npos) << large;
    EXPECT_NE(large.find(" s predicted "), std::string::npos) << large;
    EXPECT_NE(small.find("gradient_checkpointing: block, "), std::string::npos) << small;
    EXPECT_NE(small.find(" of 23.0 GiB"), std::string::npos) << small;
    const std::string kept = plan({"--gpu-memory", "48GiB", "--offload-optimizer", "1"}).out;
    EXPECT_EQ(kept.find("offload_optimizer:"), std::string::npos) << kept;
    const std::string poor = plan({"--gpu-memory", "24GiB", "--host-memory", "8GiB"}).out;
    EXPECT_NE(poor.find(" of host memory instead of 8.00 GiB this fits: gradient_checkpointing: block, "),
              std::string::npos)
        << poor;
    EXPECT_NE(poor.find("; without it this fits: "), std::string::npos) << poor;
    const Program::Result tiny = plan({"--gpu-memory", "1GB"});
    EXPECT_NE(tiny.err.find("--gpu-memory: expected more than 1GiB, found 1GB"), std::string::npos) << tiny.err;
    const Program::Result unread = plan({"--gpu-memory", "24"});
    EXPECT_EQ(unread.exit, static_cast<int>(Exit::config));
    EXPECT_NE(unread.err.find("--gpu-memory: expected a size such as 24GiB or 48GB, found 24"), std::string::npos)
        << unread.err;
}

}  // namespace
}  // namespace colonnade
